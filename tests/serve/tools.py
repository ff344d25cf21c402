"""Disks that are served, in this process and in one of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, text

from pipeline.nbd.address import Address
from pipeline.nbd.client import NbdClient
from pipeline.serve.instant import Instant
from pipeline.store.base import Store
from pipeline.store.layer import Layer

needs_libnbd = pytest.mark.skipif(which("nbdcopy") is None, reason="libnbd-bin is not installed")
needs_qemu = pytest.mark.skipif(which("qemu-io") is None, reason="qemu-utils is not installed")

SIZE = 6 * MIB + 512
PARTS = {0: noise(9 * CHUNK, 1), MIB: text(20 * CHUNK, 2), 5 * MIB + 12345: noise(3 * CHUNK, 3), SIZE - 5: b"tail!"}


def content() -> bytes:
    data = bytearray(SIZE)
    for offset, part in PARTS.items():
        data[offset : offset + len(part)] = part
    return bytes(data)


def exported(bench: Workbench) -> Workbench:
    """The machine `vm` with one disk that holds `content()`."""
    bench.export(make_disk(bench.root / "source.raw", SIZE, PARTS))
    return bench


@contextmanager
def short_folder() -> Iterator[Path]:
    """The path of a socket has 108 bytes; those of tests are longer."""
    folder = Path(tempfile.mkdtemp(prefix="fb-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def served(bench: Workbench, *, sequence: int | None = None, state: str = "guest", **options: Any) -> Iterator[Instant]:
    """The disk of `vm`, with nobody listening."""
    with Instant(bench.repository, bench.point(sequence), bench.disk(sequence), bench.root / state, **options) as found:
        yield found


@contextmanager
def listening(bench: Workbench, **options: Any) -> Iterator[tuple[Instant, str]]:
    """The disk of `vm`, and the address of a server of it."""
    with short_folder() as folder, served(bench, **options) as instant:
        instant.server.listen(folder / "s")
        yield instant, f"nbd+unix:///?socket={folder / 's'}"


def client_of(uri: str, **options: Any) -> NbdClient:
    address = Address.parse(uri)
    return NbdClient(lambda: address.connect(10), address.export, timeout=20, **options)


def read(client: NbdClient, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    client.read(offset, memoryview(buffer))
    return bytes(buffer)


def link_to(uri: str) -> socket.socket:
    return Address.parse(uri).connect(10)


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, f"{command}: {done.returncode} {done.stdout} {done.stderr}"
    return done.stdout.strip()


def qemu_io(uri: str, *commands: str) -> str:
    """Run commands of qemu-io; any I/O error fails the test."""
    out = run("qemu-io", "-f", "raw", *[part for c in commands for part in ("-c", c)], uri)
    assert "failed" not in out, out
    return out


class Gate(Layer):
    """A store whose ranged gets wait until they are let through; counts them."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Semaphore(0)
        """Released for each get, before it waits."""
        self.ranges: list[tuple[str, int, int]] = []
        self.threads: list[str] = []
        """Who asked."""

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        self.ranges.append((key, offset, length))
        self.threads.append(threading.current_thread().name)
        self.asked.release()
        self.open.wait(30)
        return self.inner.get_range(key, offset, length)


class Server:
    """`failback serve` as a process."""

    def __init__(self, arguments: list[str], socket_path: Path) -> None:
        self.socket = socket_path
        self.uri = f"nbd+unix:///?socket={socket_path}"
        code = "from pipeline.cli.main import run; run()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def wait_ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        found: dict[str, Any] = json.loads(line)
        assert found["type"] == "serving", found
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Ask it to end; its exit code and last line."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out or err


@contextmanager
def process(*arguments: object, socket_path: Path, ready: bool = True) -> Iterator[Server]:
    server = Server([*map(str, arguments), "--socket", str(socket_path)], socket_path)
    try:
        if ready:
            server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
