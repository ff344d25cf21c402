"""The disk that a guest sees: what it wrote, over a recovery point."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.exporters.base import Extent
from pipeline.serve.chunks import Chunks
from pipeline.serve.overlay import Overlay
from pipeline.store.base import Bytes


class ServedDisk:
    """Safe for many threads. Offsets and lengths in bytes, anything inside `size`; the caller checks them.

    Raises what `Chunks` and `Overlay` raise.
    """

    def __init__(self, chunks: Chunks, overlay: Overlay) -> None:
        self.chunks = chunks
        self.overlay = overlay
        self.size = overlay.size

    def try_read(self, start: int, view: memoryview) -> bool:
        """Fill `view` if nothing has to be fetched for it; else False."""
        end = start + view.nbytes
        if self.overlay.untouched(start, end):
            return self.chunks.try_read(start, view)
        return all(
            self._written(low, high, start, view)
            if written
            else self.chunks.try_read(low, view[low - start : high - start])
            for low, high, written in self.overlay.runs(start, end)
        )

    def read_into(self, start: int, view: memoryview) -> None:
        for low, high, written in self.overlay.runs(start, start + view.nbytes):
            if written:
                self._written(low, high, start, view)
            else:
                self.chunks.read_into(low, view[low - start : high - start])

    def write(self, offset: int, data: Bytes) -> None:
        self.overlay.write(offset, data, self.chunks.read_into)

    def zero(self, offset: int, length: int) -> None:
        self.overlay.zero(offset, length, self.chunks.read_into)

    def flush(self) -> None:
        self.overlay.flush()

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """What reads as zeros."""
        for low, high, written in self.overlay.runs(start, end):
            yield from (self.overlay if written else self.chunks).extents(low, high)

    def _written(self, low: int, high: int, start: int, view: memoryview) -> bool:
        self.overlay.read_into(low, view[low - start : high - start])
        return True
