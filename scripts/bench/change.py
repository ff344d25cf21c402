"""Change: a day's scattered writes on a disk image, and the way back to the state before."""

import bisect
import itertools
import os
import random
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.extents import BLOCK, Extent, data_extents

SMALLEST, LARGEST = 4 << 10, 64 << 10
"""Bytes of one rewritten piece; every multiple of a block between them is equally likely."""


@dataclass(frozen=True)
class Change:
    """Disjoint ranges that were rewritten, in the order of writing; `undo` holds their former bytes in that order."""

    extents: list[Extent]
    undo: Path

    @property
    def length(self) -> int:
        """Bytes rewritten."""
        return sum(extent.length for extent in self.extents)

    def revert(self, image: Path) -> None:
        """Put the former bytes back and remove the file that held them."""
        with open(image, "r+b", buffering=0) as disk, open(self.undo, "rb") as former:
            for extent in self.extents:
                os.pwrite(disk.fileno(), former.read(extent.length), extent.offset)
        self.undo.unlink()


def change(image: Path, undo: Path, *, fraction: float = 0.02, seed: int = 1) -> Change:
    """Rewrite this fraction of an image's data bytes in place, in scattered pieces of 4 to 64 KiB.

    New contents are joined from two other places of the image at arbitrary byte offsets: as compressible as the disk
    is, and not a copy that a deduplicating program could recognise. Holes stay holes. `undo` is created.
    """
    draw = random.Random(seed)
    data = _Data(image)
    wanted = round(data.length * fraction) // BLOCK * BLOCK
    extents: list[Extent] = []
    taken: set[int] = set()
    with open(image, "r+b", buffering=0) as disk, open(undo, "wb") as former:
        descriptor = disk.fileno()
        while wanted:
            length = min(wanted, draw.randrange(SMALLEST, LARGEST + 1, BLOCK))
            extent = data.range_at(draw.randrange(data.length) // BLOCK * BLOCK, length)
            blocks = range(extent.offset // BLOCK, extent.end // BLOCK)
            if not taken.isdisjoint(blocks):
                continue
            half = draw.randrange(extent.length)
            old = os.pread(descriptor, extent.length, extent.offset)
            new = data.bytes_at(descriptor, draw, half) + data.bytes_at(descriptor, draw, extent.length - half)
            if new == old:  # two stretches of padding: nothing would change
                continue
            former.write(old)
            os.pwrite(descriptor, new, extent.offset)
            taken.update(blocks)
            extents.append(extent)
            wanted -= extent.length
    return Change(extents, undo)


class _Data:
    """The data of an image as if it had no holes."""

    def __init__(self, image: Path) -> None:
        self._extents = [extent for extent in data_extents(image) if extent.length >= BLOCK]
        self._ends = list(itertools.accumulate(extent.length for extent in self._extents))
        if not self._ends:
            raise ValueError(f"{image} holds no data to rewrite")
        self.length = self._ends[-1]

    def range_at(self, position: int, length: int) -> Extent:
        """The range at this position of the data, cut at the hole that follows."""
        number = bisect.bisect_right(self._ends, position)
        extent = self._extents[number]
        offset = extent.end - (self._ends[number] - position)
        return Extent(offset, min(length, extent.end - offset))

    def bytes_at(self, descriptor: int, draw: random.Random, length: int) -> bytes:
        """So many bytes from random places of the data."""
        parts = []
        while length:
            place = self.range_at(draw.randrange(self.length), length)
            parts.append(os.pread(descriptor, place.length, place.offset))
            length -= place.length
        return b"".join(parts)
