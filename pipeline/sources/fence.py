"""The fence: whoever acts for an older ownership than the newest one seen does nothing any more.

An effect is done inside a `turn`, which is the only one on this host for its machine; the epoch is compared in it,
right before the effect. So a process that slept wakes up either before its turn, and is refused, or in it, and then
the later one has waited. Turns are short where the effect is: what only waits is done outside.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import SourceBusy, SourceError, Superseded
from pipeline.target import Control, Journal

EPOCH = "source-epoch"
"""Key of the journal."""
_PATIENCE_SECONDS = 60.0
_STEP = 0.05


class Fence:
    """Of one machine. `lock` is a file that need not exist yet."""

    def __init__(self, machine: str, notes: Journal, lock: Path, control: Control) -> None:
        self._machine = machine
        self._notes = notes
        self._lock = lock
        self._control = control

    @property
    def epoch(self) -> int:
        """The highest that was seen; 0: none."""
        text = self._notes.get(EPOCH)
        return int(text) if text.isdigit() else 0

    @contextmanager
    def turn(self, epoch: int | None) -> Iterator[None]:
        """None: for what is not fenced, and only must not come in between. Raises Superseded, SourceBusy."""
        with self._alone():
            if epoch is not None:
                self._keep(epoch)
            yield

    def _keep(self, epoch: int) -> None:
        seen = self.epoch
        if epoch < seen:
            raise Superseded(
                f"{self._machine} at its takeover site belongs to ownership {seen} by now, this is ownership {epoch}: "
                "nothing was changed",
                remedy="look at the run: another conductor, or a rollback, has gone on",
            )
        if epoch > seen:
            self._notes.note(EPOCH, str(epoch))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SourceError(
                f"{self._machine}: {self._lock} cannot be used: {error.strerror}", remedy="check who owns the folder"
            ) from error
        try:
            end = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._patience(descriptor, end)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _patience(self, descriptor: int, end: float) -> None:
        self._control.check()
        if time.monotonic() > end:
            holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip() or "an unknown process"
            raise SourceBusy(
                f"another process of failback works on {self._machine}: {holder}", remedy="wait for it, or end it first"
            )
        time.sleep(_STEP)
