"""How long a VMDK stream of a disk will be, before any of it is made.

**Stored**: from the index alone, exactly.

**Compressed**: what deflate will make of a chunk is not known, but what zstd made of it is: its sealed length stands in
the index. A sample of chunks, evenly spread over the data, is fetched and packed; its ratio to the sealed lengths gives
the sum for all of them, with the error that such an estimate has. The stream is announced with that and a margin, and
stretched to it where it ends up shorter (`pipeline.writers.vmdk_grain`). A disk with few chunks is sampled whole.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from manifests.entry import PackTable
from manifests.manifest import Disk
from pipeline.errors import FormatError
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.index_reader import Block, IndexReader, concatenate
from pipeline.transfer.ordered import damaged
from pipeline.transfer.packer import Packer
from pipeline.writers.vmdk_grain import STORED, length_of
from pipeline.writers.vmdk_stream import GRAIN, SECTOR, TABLE_GRAINS, Shape

SAMPLE = 400
"""Chunks of 64 KiB; fewer of larger ones, by the root of their size: each tells more."""
_ERRORS = 4
"""Standard errors of the estimate that are added to it."""
_MARGIN = 0.005
"""Of the estimate, beyond that."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a stream has to hold: grains (those of chunks that are not zero), tables that are not empty."""

    grains: int
    tables: int
    sealed: int
    """Stored bytes of all chunks."""
    sample: Block | None
    """Every so many of them; None: there are none."""
    packs: PackTable

    @property
    def sampled_whole(self) -> bool:
        """The sample is all there is."""
        return self.sample is not None and int(self.sample[1]["length"].sum(dtype=np.int64)) == self.sealed


def extent_of(repository: Repository, disk: Disk) -> Extent:
    """Goes through the disk's index once."""
    shape, packs = Shape(disk.size), PackTable()
    each = disk.chunk_size // GRAIN
    step = max(disk.data_bytes // disk.chunk_size // int(SAMPLE / each**0.5), 1)
    chunks = grains = tables = sealed = 0
    last = -1
    picked: list[Block] = []
    for positions, rows in IndexReader(repository, disk, packs).windows():
        grains += len(positions) * each
        if positions[-1] == disk.positions - 1:
            grains -= disk.positions * each - shape.grains  # those of the last chunk that are beyond the disk
        used = np.unique(positions * np.uint64(each) // np.uint64(TABLE_GRAINS))
        tables += len(used) - int(used[0] == last)
        last = int(used[-1])
        sealed += int(rows["length"].sum(dtype=np.int64))
        first = (step // 2 - chunks) % step
        picked.append((positions[first::step].copy(), rows[first::step].copy()))
        chunks += len(positions)
    return Extent(grains, tables, sealed, concatenate(picked) if picked else None, packs)


def announced(repository: Repository, disk: Disk, extent: Extent, pack: Packer, *, name: str, parallel: int) -> int:
    """Bytes to announce for all grains when they are packed by `pack`. Raises CorruptObject, StoreError."""
    if extent.sample is None:
        return 0
    jobs = by_pack(*extent.sample)
    if not extent.sampled_whole:
        # One by one: what lies between them is most of the disk.
        jobs = [PackJob(j.pack, j.positions[i : i + 1], j.rows[i : i + 1]) for j in jobs for i in range(len(j.rows))]
    with ThreadPoolExecutor(parallel, "sample") as pool:

        def packed(job: PackJob) -> list[tuple[int, int]]:
            fetcher = Fetcher(repository, disk.chunk_size, extent.packs)
            lengths = dict(zip(job.positions.tolist(), job.rows["length"].tolist(), strict=True))
            found: list[tuple[int, int]] = []
            try:
                for position, plain in fetcher.chunks(job):
                    found.append((lengths[position], sum(length_of(pieces) for _, pieces in pack(position, plain))))
            except FormatError as error:
                raise damaged(name, disk, int(job.positions[len(found)]), error) from error
            return found

        pairs = np.array([pair for found in pool.map(packed, jobs) for pair in found], np.float64)
    sealed, made = pairs[:, 0], pairs[:, 1]
    most = extent.grains * STORED
    if extent.sampled_whole:
        return int(made.sum())
    ratio = made.sum() / sealed.sum()
    total = ratio * extent.sealed
    # Of a ratio estimate: Cochran, Sampling Techniques, 2.11.
    error = float(np.std(made - ratio * sealed, ddof=1)) / len(pairs) ** 0.5 * (extent.sealed / sealed.mean())
    whole = int(total * (1 + _MARGIN) + _ERRORS * error) // SECTOR * SECTOR + SECTOR
    return min(whole, most)
