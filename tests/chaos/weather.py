"""What happens to the server and to the way there, one trouble after the other."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from servers import Server, run_minio
from simulators.rough_line import RoughLine

from chaos.ledger import Ledger

HOUR = timedelta(hours=1)
JUMPS = (HOUR / 3, 2 * HOUR, 25 * HOUR)
"""Longer than a silent writer of another host is waited for, than the shortest grace, than tombstones wait."""
PIECE = 1 << 20
FULL = 0.6
"""Of the server's disk: then a day passes, so that collectors can free what was forgotten."""


class Weather:
    """One server on a small disk, and the line to it. `story` says what happened, with seconds since the beginning."""

    def __init__(self, home: Path, disk: Path, ledger: Ledger, seed: int) -> None:
        self.home, self.disk, self.ledger = home, disk, ledger
        self.random = random.Random(f"{seed}/weather")
        self.line = RoughLine("", seed)
        self.story: list[str] = []
        self.most_used = 0
        self._began = time.monotonic()
        self._passed = threading.Condition()
        self._jumps = 0
        self._over = False
        self._server: Server
        self._keeper: ThreadPoolExecutor
        self._stack = ExitStack()

    @contextmanager
    def there(self) -> Iterator[Server]:
        """The server as clients see it."""
        with ThreadPoolExecutor(1, "keeper") as self._keeper, self._stack:
            self._start(self.disk / "minio", new=True)
            with self.line.running():
                yield self._server

    @property
    def troubles(self) -> dict[Callable[[], None], int]:
        """Each with its weight."""
        return {
            self.kill_server: 3,
            self.stop_server: 3,
            self.cut: 4,
            self.lose: 4,
            self.hold: 2,
            self.fill_disk: 3 if os.geteuid() == 0 else 0,
            self.let_time_pass: 6,
        }

    def turn(self) -> None:
        time.sleep(self.random.uniform(0.3, 2.5))
        used = self._used()
        self.most_used = max(self.most_used, used)
        if used > FULL * self._size():
            self.pass_time(JUMPS[-1])
            time.sleep(5)
            return
        troubles = self.troubles
        self.random.choices(list(troubles), list(troubles.values()))[0]()

    def kill_server(self) -> None:
        self.tell("the server is killed")
        self._server.process.kill()
        self._server.process.wait()
        time.sleep(self.random.uniform(0, 3))
        self._start(self._server.directory, new=False)
        self.tell("another server is there")

    def stop_server(self) -> None:
        self.tell("the server is stopped")
        self._server.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(self.random.uniform(0.5, 9))
        finally:
            self._server.process.send_signal(signal.SIGCONT)
        self.tell("the server goes on")

    def cut(self) -> None:
        self.tell("all connections are cut")
        self.line.cut()

    def lose(self) -> None:
        self.line.loss = self.random.choice((0.05, 0.3, 0.6))
        self.tell(f"{self.line.loss:.0%} of requests are lost")
        time.sleep(self.random.uniform(1, 4))
        self.line.loss = 0.0

    def hold(self) -> None:
        self.tell("nothing passes")
        self.line.hold()
        try:
            time.sleep(self.random.uniform(0.5, 8))
        finally:
            self.line.go_on()

    def fill_disk(self) -> None:
        self.tell("the server's disk is full")
        ballast = self.disk / "ballast"
        try:
            with open(ballast, "wb") as file:
                _take_all(file.fileno())
                time.sleep(self.random.uniform(2, 6))
        finally:
            ballast.unlink()
        self.tell("the server's disk has room")

    def let_time_pass(self) -> None:
        self.pass_time(self.random.choices(JUMPS, (3, 4, 2))[0])

    def pass_time(self, jump: timedelta) -> None:
        self.line.pass_time(jump)
        self.tell(f"{jump} passed")
        with self._passed:
            self._jumps += 1
            self._passed.notify_all()

    def wait_for_time(self, seconds: float) -> None:
        """Until time has passed, for some while at most, and then so many seconds."""
        with self._passed:
            seen = self._jumps
            self._passed.wait_for(lambda: self._jumps > seen or self._over, timeout=30)
        time.sleep(seconds)

    def end(self) -> None:
        """Time will not pass any more, unless it is said."""
        with self._passed:
            self._over = True
            self._passed.notify_all()

    def tell(self, what: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:7.2f}  {what}")
        self.ledger.count(f"weather: {what}")

    def _start(self, objects: Path, *, new: bool) -> None:
        """In a thread that stays: a server dies with the thread that started it."""
        server = run_minio(self.home, objects=objects, bucket=new)
        self._server = self._keeper.submit(self._stack.enter_context, server).result()
        self.line.backend = self._server.endpoint

    def _size(self) -> int:
        return os.statvfs(self.disk).f_blocks * os.statvfs(self.disk).f_frsize

    def _free(self) -> int:
        return os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize

    def _used(self) -> int:
        return self._size() - self._free()


def _take_all(file: int) -> None:
    """Whatever room its file system has, to less than a MiB."""
    size = 0
    with suppress(OSError):  # "no space left", at the latest
        while True:
            os.posix_fallocate(file, size, PIECE)
            size += PIECE
