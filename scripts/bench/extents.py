"""Extents: byte ranges of a disk image, and the JSON file that lists changed ones."""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096
"""Bytes of a file system block: images hold data and holes in multiples of it."""


@dataclass(frozen=True, order=True)
class Extent:
    """A range of a disk, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def data_extents(path: Path) -> Iterator[Extent]:
    """Ranges of a sparse file that hold data, in order, as the file system reports them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        position, size = 0, os.fstat(descriptor).st_size
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # the rest is a hole
                    return
                raise
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            yield Extent(start, position - start)
    finally:
        os.close(descriptor)


def write_extents(path: Path, extents: list[Extent]) -> None:
    """Write a change list: ``{"extents": [[offset, length], ...]}`` in bytes, sorted by offset."""
    path.write_text(json.dumps({"extents": [[extent.offset, extent.length] for extent in sorted(extents)]}))
