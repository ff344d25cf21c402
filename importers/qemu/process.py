"""The process of a machine: found by what it was started with, never by a number that somebody wrote down.

It is ours when its command line has the machine's UUID and it works in the machine's folder. That holds for one that
was started by hand as well, and for one whose starter was killed at once.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import TargetError

_PROC = Path("/proc")
LOCK_FILE = "running"
"""In the machine's folder; held by a process from before it is QEMU until its end."""
_KILL_SECONDS = 30.0
_STEP = 0.25


class Process:
    """A process that runs, held so that its number cannot become another's. Use it as a context."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._descriptor = descriptor

    def wait(self, seconds: float, check: Callable[[], None] = lambda: None) -> bool:
        """Whether it ended within that time. `check` is called several times a second."""
        end, poll = time.monotonic() + seconds, select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while True:
            left = max(end - time.monotonic(), 0)
            if poll.poll(min(left, _STEP) * 1000):
                with suppress(ChildProcessError):
                    os.waitpid(self.number, os.WNOHANG)
                return True
            if left == 0:
                return False
            check()

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)

    def kill(self) -> None:
        """Hard, and wait until it is gone. Raises TargetError when it does not go."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        if not self.wait(_KILL_SECONDS):
            raise TargetError(
                f"process {self.number} was killed and does not end: it hangs in the kernel",
                remedy="see what its storage waits for; nothing else can end it",
            )

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def running(folder: Path, word: str) -> Iterator[Process | None]:
    """The process that works in `folder` and has `word` (a machine's UUID) among its arguments; None when it is proved
    that there is none."""
    process = _find(folder, word)
    try:
        yield process
    finally:
        if process is not None:
            process.close()


def runs(folder: Path, marker: uuid.UUID) -> bool:
    """Whether the machine in `folder` runs."""
    with running(folder, str(marker)) as process:
        return process is not None


def _find(folder: Path, word: str) -> Process | None:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or not _is_ours(entry, folder, word):
            continue
        number = int(entry.name)
        try:
            descriptor = os.pidfd_open(number)
        except ProcessLookupError:
            continue
        if _is_ours(entry, folder, word):  # and not one that got its number since
            return Process(number, descriptor)
        os.close(descriptor)
    return None


def _is_ours(entry: Path, folder: Path, word: str) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")  # empty for a process that ended
        if word.encode() not in words:
            return False
        return (entry / "cwd").samefile(folder)
    except OSError:
        return False


def claim(folder: Path) -> int | None:
    """The right to start the machine: a descriptor to hand on to its process, which keeps it. None: it is taken, by
    a process that is about to be QEMU, or is."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
