"""Difference: the blocks of 64 KiB that differ between two states of a disk, and what zstd makes of them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.change import Change

CHUNK = 64 << 10


@dataclass(frozen=True)
class Difference:
    """Chunks that differ; `compressed` is the sum of their sizes in bytes when each is a zstd frame of level 1."""

    chunks: int
    compressed: int


def difference(image: Path, applied: Change) -> Difference:
    """Compare an image that was changed with what it was before, in chunks of 64 KiB."""
    import zstandard  # late: see the package's docstring

    compressor = zstandard.ZstdCompressor(level=1)
    chunks = compressed = 0
    for before, after in _touched(image, applied):
        if before != after:
            chunks += 1
            compressed += min(len(compressor.compress(after)), len(after)) if any(after) else 0
    return Difference(chunks, compressed)


def _touched(image: Path, applied: Change) -> Iterator[tuple[bytes, bytes]]:
    former: dict[int, list[tuple[int, bytes]]] = {}
    with open(applied.undo, "rb") as undo:
        for extent in applied.extents:
            old = undo.read(extent.length)
            start = extent.offset
            while start < extent.end:
                chunk = start // CHUNK
                stop = min(extent.end, (chunk + 1) * CHUNK)
                piece = old[start - extent.offset : stop - extent.offset]
                former.setdefault(chunk, []).append((start - chunk * CHUNK, piece))
                start = stop
    with open(image, "rb", buffering=0) as disk:
        for chunk in sorted(former):
            after = os.pread(disk.fileno(), CHUNK, chunk * CHUNK)
            before = bytearray(after)
            for offset, piece in former[chunk]:
                before[offset : offset + len(piece)] = piece
            yield bytes(before), after
