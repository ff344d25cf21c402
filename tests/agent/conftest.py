"""A controller, an agent as a process of its own, and loop devices with serial numbers as its disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cli.conftest import empty, failback, key, repository
from guard.conftest import make_site
from servers import die_with_parent
from simulators.numbered import numbered
from transfer.support import Workbench

from pipeline.agent.code import StoreLogin
from pipeline.agent.controller import Agents
from pipeline.agent.image import build_worker
from pipeline.agent.orders import DiskName, Held, Receive
from pipeline.agent.remote import Outcome, Remote, order_id, point_disk
from pipeline.boot.cache import default_folder
from pipeline.home.control import Controller
from pipeline.store.open import open_store

__all__ = ["empty", "failback", "key", "make_site", "repository"]
"""Fixtures of other parts."""
WORKER_CACHE = default_folder("worker")
"""Looked up before tests isolate themselves."""
AGENT = [sys.executable, "-c", "from pipeline.cli.main import run; run()", "agent", "run", "--code", "-", "--idle", "1"]


@dataclass
class AgentProcess:
    """`failback agent run`, with what it says."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.lines.append(line.rstrip())
                self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()

    def says(self, text: str, seconds: float = 60) -> str:
        """Wait for a line with this text."""
        end = time.monotonic() + seconds
        with self._heard:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                assert self.process.poll() is None or self._reader.is_alive(), self.lines
                assert self._heard.wait(end - time.monotonic()), f"no {text!r} in {self.lines}"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """As init ends it."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextmanager
def running_agent(state: Path, code: str) -> Iterator[AgentProcess]:
    """The agent on a host of its own, which knows nothing but its code."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FAILBACK_"))}
    env |= {"FAILBACK_STATE_DIR": str(state), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        AGENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        preexec_fn=die_with_parent,
    )
    assert process.stdin is not None
    process.stdin.write(code)
    process.stdin.close()
    try:
        yield AgentProcess(process)
    finally:
        process.kill()
        process.wait()


class Site:
    """One repository with one controller; agents and disks on demand."""

    def __init__(self, root: Path, address: str, stack: ExitStack, login: StoreLogin | None = None) -> None:
        self.root = root
        self.address = address
        self.login = login
        self.stack = stack
        (root / "bench-root").mkdir()
        self.bench = Workbench(root / "bench-root", open_store(address, create=True))
        self.controller = Controller()
        self.agents = Agents(self.bench.repository, root / "controller", self.controller)
        self.codes: dict[str, str] = {}

    def pair(self, name: str = "worker") -> str:
        """A code is made; returns the agent's id."""
        code = self.agents.pair(name, self.address, login=self.login)
        self.codes[code.agent] = code.encode()
        return code.agent

    def start(self, agent: str, state: str = "agent", **environ: str) -> AgentProcess:
        """The agent on a host of its own, which knows nothing but its code."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FAILBACK_"))}
        env |= {"FAILBACK_STATE_DIR": str(self.root / state), "PYTHONPATH": str(Path(__file__).parents[2]), **environ}
        process = subprocess.Popen(
            AGENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            preexec_fn=die_with_parent,
        )
        assert process.stdin is not None
        process.stdin.write(self.codes[agent])
        process.stdin.close()
        running = AgentProcess(process)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return running

    def paired(self, name: str = "worker") -> tuple[Remote, AgentProcess]:
        """An agent that runs and may be given orders."""
        agent = self.pair(name)
        process = self.start(agent)
        self.agents.await_answer(agent, 60)
        return self.agents.agent(agent), process

    def disk(self, size: int, serial: str) -> tuple[Path, DiskName]:
        """An empty disk of the agent's host: (file below the device, name). Other tests run beside this one: the serial
        number gets a tail of its own."""
        serial = f"{serial}-{os.urandom(4).hex()}"
        file = self.root / f"{serial}.disk"
        with file.open("wb") as stream:
            stream.truncate(size)
        self.stack.enter_context(numbered(file, serial))
        return file, DiskName(serial=serial, size=size)

    def receive(
        self, remote: Remote, disk: DiskName, sequence: int | None = None, *, order: str = "", held: Held | None = None,
        seeds: tuple[DiskName, ...] = (),
    ) -> Outcome:  # fmt: skip
        point = self.bench.point(sequence)
        params = Receive(disk=disk, point=point_disk(point, 0), held=held, seeds=seeds)
        return remote.receive(order or order_id("test", os.urandom(8)), params)

    def held(self, sequence: int | None) -> Held:
        """The word of a controller who watched the disk; None: it is empty."""
        return Held(point=None if sequence is None else point_disk(self.bench.point(sequence), 0))


@pytest.fixture(scope="session")
def worker_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a worker. Made once, and never written to."""
    out = tmp_path_factory.mktemp("worker") / "worker.raw"
    build_worker(out, cache=WORKER_CACHE)
    return out


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ended after the test, in reverse order."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site(tmp_path: Path, stack: ExitStack) -> Site:
    """With a repository in a directory."""
    return Site(tmp_path, str(tmp_path / "repository"), stack)
