"""Loop devices, mounts and NBD servers for tests; each ends with its `with` block."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")
needs_qemu = pytest.mark.skipif(which("qemu-nbd") is None, reason="qemu-utils is not installed")
needs_nbdkit = pytest.mark.skipif(which("nbdkit") is None, reason="nbdkit is not installed")


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def loop(path: Path, *options: str) -> Iterator[str]:
    device = run("losetup", "--find", "--show", *options, path)
    try:
        yield device
    finally:
        # The read-only mark would outlive the loop device and meet the next user of its number.
        run("blockdev", "--setrw", device)
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(what: str | Path, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", *options, what, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system with little room."""
    with mounted("tmpfs", folder, "-t", "tmpfs", "-o", f"size={megabytes}m") as place:
        yield place


class NbdServer:
    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self.uri = f"nbd+unix:///?socket={path}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(folder: Path, *command: str | Path) -> Iterator[NbdServer]:
    """Run a server whose arguments hold `{socket}`, until the end of the block."""
    path = folder / f"nbd-{os.urandom(4).hex()}"
    process = subprocess.Popen([str(part).replace("{socket}", str(path)) for part in command])
    try:
        deadline = time.monotonic() + 30
        while not _greets(path):
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.01)
        yield NbdServer(process, path)
    finally:
        process.kill()
        process.wait()


def _greets(path: Path) -> bool:
    """qemu-nbd listens before it opens, and locks, its image: only its greeting says that it has done so."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(30)
        try:
            probe.connect(str(path))
            return bool(probe.recv(1))
        except OSError:
            return False


def nbdkit(folder: Path, *arguments: str | Path) -> contextlib.AbstractContextManager[NbdServer]:
    return serving(folder, "nbdkit", "--foreground", "--unix", "{socket}", *arguments)


def qemu_nbd(folder: Path, *arguments: str | Path) -> contextlib.AbstractContextManager[NbdServer]:
    return serving(folder, "qemu-nbd", "--persistent", "--socket", "{socket}", *arguments)


def own_servers() -> list[int]:
    """qemu-nbd processes that we started ourselves, dead ones included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == os.getpid() and command[0].endswith(b"qemu-nbd") and b"--persistent" not in command:
            found.append(int(folder.name))
    return found
