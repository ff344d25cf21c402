"""Chunks become grains of a VMDK stream."""

from __future__ import annotations

from manifests.manifest import Disk
from manifests.sealing import Buffer
from pipeline.writers.vmdk_grain import Compress, Pieces, compressed, compressor, stored
from pipeline.writers.vmdk_stream import GRAIN, Shape

_ZEROS = bytes(GRAIN)
Packed = list[tuple[int, Pieces]]
"""Grains of one chunk, by number."""


class Packer:
    """Safe for many threads. `level`: 0 is stored, 1 to 9 as zlib's. `all_grains`: also those that are zero, in chunks
    of several grains that are not: how many there are is then known beforehand."""

    def __init__(self, disk: Disk, level: int, *, all_grains: bool) -> None:
        self._each = disk.chunk_size // GRAIN
        self._grains = Shape(disk.size).grains
        self._compress: Compress | None = compressor(level) if level else None
        self._all = all_grains or self._each == 1

    def __call__(self, position: int, plain: Buffer) -> Packed:
        first = position * self._each
        view = memoryview(plain)
        packed: Packed = []
        for i in range(min(self._each, self._grains - first)):
            part = view[i * GRAIN : (i + 1) * GRAIN]
            if self._all or part.tobytes() != _ZEROS:
                packed.append((first + i, self._pack(first + i, part)))
        return packed

    def _pack(self, grain: int, plain: memoryview) -> Pieces:
        return stored(grain, plain) if self._compress is None else compressed(grain, plain, self._compress)
