"""Writing chunks so that a sparse target stays sparse."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.writers.base import BlockWriter

_BLOCK = 4096
"""What file systems allocate at least; where a target reads as zeros, blocks of zeros are not written."""
_ZERO = bytes(_BLOCK)


class SparseTarget:
    """`known_zero`: what is not written yet reads as zeros. Safe to use from many threads at different places."""

    def __init__(self, writer: BlockWriter, *, known_zero: bool) -> None:
        self._writer = writer
        self._known_zero = known_zero

    def write(self, offset: int, chunks: list[bytes | memoryview]) -> None:
        """Write chunks that stand side by side. Where the target reads as zeros, blocks of zeros are left out."""
        batch: list[bytes | memoryview] = []
        start = following = offset
        for chunk in chunks:
            for low, high in _data_in(chunk) if self._known_zero else self._not_holes(following, chunk):
                if following + low != start + sum(map(len, batch)):
                    if batch:
                        self._writer.write(start, batch)
                    batch, start = [], following + low
                batch.append(chunk if high - low == len(chunk) else memoryview(chunk)[low:high])
            following += len(chunk)
        if batch:
            self._writer.write(start, batch)

    def _not_holes(self, offset: int, chunk: bytes | memoryview) -> list[tuple[int, int]]:
        """(low, high) of what must be written where the target may hold something: all but blocks of zeros that it
        has as holes. Else a refresh would fill up a sparse disk."""
        ranges = list(_data_in(chunk))
        if ranges == [(0, len(chunk))]:
            return ranges
        held = self._writer.extents(offset, offset + len(chunk))
        ranges += [(e.offset - offset, e.offset - offset + e.length) for e in held if not e.zero]
        joined: list[tuple[int, int]] = []
        for low, high in sorted(ranges):
            if joined and low <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        return joined


def _data_in(chunk: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """(low, high) of what is not blocks of zeros. A chunk that did not compress (a view) has none."""
    length = len(chunk)
    if not isinstance(chunk, bytes):
        yield 0, length
        return
    low = -1
    for at in range(0, length, _BLOCK):
        if chunk.startswith(_ZERO, at):
            if low >= 0:
                yield low, at
            low = -1
        elif low < 0:
            low = at
    if low >= 0:
        yield low, length
