"""Sealed chunks of a stretch of a disk, fetched at once: what is needed of each pack with one or two requests.

Chunks that changed at different times lie in different packs, each in the order of the disk. Who goes through a disk
in order needs a little of many packs at any moment: asked for chunk by chunk that would be a request each.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from manifests.entry import PackTable
from manifests.sealing import ObjectKey
from pipeline.errors import FormatError
from pipeline.repository import Repository
from pipeline.transfer.fetch import PackJob, by_pack
from pipeline.transfer.index_reader import Block

Read = tuple[memoryview, int, ObjectKey | None]
"""As `Repository.read_pack` gives it."""


class Window:
    """Begins to fetch `jobs` when it is made, and holds what came until it is forgotten."""

    def __init__(self, repository: Repository, packs: PackTable, jobs: list[PackJob], pool: ThreadPoolExecutor) -> None:
        self._repository = repository
        self._parts: dict[bytes, list[tuple[int, int, Future[Read]]]] = {}
        for job in jobs:
            pack = packs.ids[job.pack]
            self._parts[pack] = [
                (start, end, pool.submit(repository.read_pack, pack, start, end - start)) for start, end in _spans(job)
            ]

    def read_pack(self, pack: bytes, offset: int, length: int) -> Read:
        """As `Repository.read_pack`, of what was fetched. Raises StoreError, FormatError."""
        for start, end, part in self._parts.get(pack, ()):
            if start <= offset and offset + length <= end:
                try:
                    return part.result()
                except FormatError:
                    break  # once more, for an error of the reader's own
        return self._repository.read_pack(pack, offset, length)

    @property
    def fetched(self) -> int:
        """Bytes that came; waits for them."""
        parts = [part for found in self._parts.values() for *_, part in found]
        return sum(len(part.result()[0]) for part in parts if part.exception() is None)


def cut(blocks: Iterator[Block], *, stored: int) -> Iterator[tuple[Block, list[PackJob]]]:
    """Blocks of an index in pieces that take about `stored` bytes to fetch, what lies between included; with jobs."""
    for positions, rows in blocks:
        ends = np.cumsum(rows["length"], dtype=np.int64)
        start = 0
        while start < len(positions):
            before = int(ends[start - 1]) if start else 0
            end = max(int(np.searchsorted(ends, before + stored, "right")), start + 1)
            while True:
                jobs = by_pack(positions[start:end], rows[start:end])
                spans = sum(high - low for job in jobs for low, high in _spans(job))
                if spans <= 1.25 * stored or end == start + 1:
                    break
                end = max(start + int((end - start) * stored / spans), start + 1)  # they lie apart in their packs
            yield (positions[start:end], rows[start:end]), jobs
            start = end


def _spans(job: PackJob) -> list[tuple[int, int]]:
    """(first byte, end) of what is asked for of a pack."""
    offsets, lengths = job.rows["offset"].astype(np.int64), job.rows["length"]
    return [(int(offsets[a]), int((offsets[a:b] + lengths[a:b]).max())) for a, b in job.ranges()]
