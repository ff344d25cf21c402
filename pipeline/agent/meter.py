"""A writer that tells how much was written and where the time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from pipeline.exporters.base import Extent
from pipeline.store.base import Bytes
from pipeline.writers.base import BlockWriter


class Steps:
    """Seconds of each step of one order, one after the other."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._current = ""
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def begin(self, step: str) -> None:
        """The step before ends here; the same one goes on."""
        if step == self._current:  # without the lock: called for every batch, and a lost race ends in the same step
            return
        with self._lock:
            now = time.monotonic()
            if self._current:
                self._seconds[self._current] = self._seconds.get(self._current, 0.0) + now - self._since
            self._current, self._since = step, now

    def add(self, step: str, seconds: float) -> None:
        with self._lock:
            self._seconds[step] = seconds

    def snapshot(self) -> dict[str, float]:
        """So far, rounded to milliseconds."""
        with self._lock:
            found = dict(self._seconds)
            if self._current:
                found[self._current] = found.get(self._current, 0.0) + time.monotonic() - self._since
        return {step: round(seconds, 3) for step, seconds in found.items()}


class MeteredWriter(BlockWriter):
    """Passes everything on to `inner`. What is read after a flush counts as read-back, until something is written."""

    def __init__(self, inner: BlockWriter, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps
        self._lock = threading.Lock()
        self._flushed = False
        self.name = inner.name
        self.size = inner.size
        self.fresh = inner.fresh
        self.written = 0
        self.discarded = 0

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        self._changes()
        self._inner.write(offset, buffers)
        with self._lock:
            self.written += sum(memoryview(buffer).nbytes for buffer in buffers)

    def discard(self, offset: int, length: int) -> None:
        self._changes()
        self._inner.discard(offset, length)
        with self._lock:
            self.discarded += length

    def flush(self) -> None:
        self._steps.begin("flush")
        self._inner.flush()
        self._flushed = True
        self._steps.begin("write")  # unless what comes next is reading

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        return self._inner.extents(start, end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._steps.begin("read_back" if self._flushed else "write")
        self._inner.read_into(offset, buffer)

    def drop_cache(self) -> None:
        self._inner.drop_cache()

    def guard(self) -> str:
        return self._inner.guard()

    def close(self) -> None:
        self._inner.close()

    def _changes(self) -> None:
        if self._flushed:
            self._flushed = False
        self._steps.begin("write")
