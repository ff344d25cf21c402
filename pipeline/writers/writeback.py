"""Early write-back: dirty pages start towards the disk while later ones are still produced."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from pipeline.writers.linux import start_writeback

_BATCH = 8 * 1024 * 1024
_BACKLOG = 32


class Writeback:
    """Makes the last flush short. Only a hint: it never delays a writer and never reports an error (fsync does)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._ranges: list[tuple[int, int]] = []
        self._bytes = 0
        self._queue: SimpleQueue[list[tuple[int, int]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def wrote(self, offset: int, length: int) -> None:
        with self._lock:
            self._ranges.append((offset, length))
            self._bytes += length
            if self._bytes < _BATCH:
                return
            ranges, self._ranges, self._bytes = self._ranges, [], 0
            if self._closed or self._queue.qsize() >= _BACKLOG:
                return  # the disk is behind: the kernel's own write-back and the flush will get there
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writeback", daemon=True)
                self._thread.start()
        self._queue.put(ranges)

    def close(self) -> None:
        """Stop before the descriptor is closed, so that its number cannot mean another file."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            try:
                while True:
                    self._queue.get_nowait()
            except Empty:
                pass
            self._queue.put(None)
            thread.join()

    def _run(self) -> None:
        while (ranges := self._queue.get()) is not None:
            for offset, length in merged(ranges):
                try:
                    start_writeback(self._fd, offset, length)
                except OSError:
                    break


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, with neighbours and overlaps joined."""
    result: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if result and offset <= result[-1][0] + result[-1][1]:
            first, known = result[-1]
            result[-1] = (first, max(known, offset + length - first))
        else:
            result.append((offset, length))
    return result
