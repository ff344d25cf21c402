"""From index entries to plain chunks: which ranges of which packs to get, decoded and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, ids_of
from manifests.names import pack_key
from manifests.pack import ChunkDecoder
from manifests.sealing import ObjectKey
from pipeline.errors import CorruptObject, FormatError
from pipeline.repository import Repository

GAP = 1 << 20
"""Unneeded bytes inside a pack that are rather read than asked around."""


@dataclass(frozen=True, slots=True)
class PackJob:
    """The chunks wanted of one pack, by offset."""

    pack: int
    positions: Positions
    rows: Rows

    @property
    def wanted(self) -> int:
        """Stored bytes of the chunks."""
        return int(self.rows["length"].sum(dtype=np.int64))

    def ranges(self) -> list[tuple[int, int]]:
        """One or two (first, end) slices of the entries, each to be got with one request: cut at the largest gap."""
        offsets = self.rows["offset"].astype(np.int64)
        gaps = offsets[1:] - (offsets[:-1] + self.rows["length"][:-1])
        if not len(gaps) or gaps.max() <= GAP:
            return [(0, len(offsets))]
        cut = int(gaps.argmax()) + 1
        return [(0, cut), (cut, len(offsets))]


def by_pack(positions: Positions, rows: Rows) -> list[PackJob]:
    """Entries (no zeros) grouped by pack, packs in the order of their first position."""
    order = np.lexsort((rows["offset"], rows["pack"]))
    sorted_rows, sorted_positions = rows[order], positions[order]
    bounds = [0, *(np.flatnonzero(np.diff(sorted_rows["pack"])) + 1).tolist(), len(order)]
    jobs = [
        PackJob(int(sorted_rows["pack"][a]), sorted_positions[a:b], sorted_rows[a:b])
        for a, b in pairwise(bounds)
        if a < b
    ]
    jobs.sort(key=lambda job: int(job.positions.min()))
    return jobs


class Fetcher:
    """Gets and decodes chunks. One per thread."""

    def __init__(self, repository: Repository, chunk_size: int, packs: PackTable) -> None:
        self._repository = repository
        self._packs = packs
        self._decoder = ChunkDecoder(chunk_size)
        self.fetched = 0
        """Bytes got from the store."""

    def chunks(self, job: PackJob) -> Iterator[tuple[int, bytes | memoryview]]:
        """(position, plain chunk) by offset. Each chunk has the id that the index says. Raises CorruptObject."""
        pack = self._packs.ids[job.pack]
        key = pack_key(pack)
        offsets, lengths = job.rows["offset"].tolist(), job.rows["length"].tolist()
        flags, positions = job.rows["flags"].tolist(), job.positions.tolist()
        slots, ids = job.rows["slot"].tolist(), ids_of(job.rows)
        last: tuple[int, bytes | memoryview] = (-1, b"")
        for first, end in job.ranges():
            start = offsets[first]
            stop = max(o + n for o, n in zip(offsets[first:end], lengths[first:end], strict=True))
            try:
                data, start, cipher = self._repository.read_pack(pack, start, stop - start)
            except FormatError as error:
                error.remedy = error.remedy or _REMEDY  # a store knows that a pack is cut short, not what to do
                data, cipher = self._repository.older_pack(pack, error)
                start = 0
            self.fetched += len(data)
            for i in range(first, end):
                if offsets[i] == last[0]:
                    yield positions[i], last[1]  # the same chunk at another position
                    continue
                name = f"{key}, the chunk at byte {offsets[i]},"
                chunk_id = ids[i * ID_SIZE : (i + 1) * ID_SIZE]
                which = (lengths[i], flags[i], slots[i], chunk_id, name)
                try:
                    plain = self._chunk(data[offsets[i] - start :], cipher, *which)
                except CorruptObject as error:
                    self._repository.forget_key(pack)  # it may be the envelope that was damaged
                    data, cipher = self._repository.older_pack(pack, error)
                    start = 0
                    self.fetched += len(data)
                    plain = self._chunk(data[offsets[i] :], cipher, *which)
                last = (offsets[i], plain)
                yield positions[i], plain

    def _chunk(
        self, data: memoryview, cipher: ObjectKey | None, length: int, flags: int, slot: int, chunk_id: bytes, name: str
    ) -> bytes | memoryview:
        """The plain chunk that `data` begins with."""
        plain = self._decoder.decode(data[:length], flags, key=cipher, slot=slot, chunk_id=chunk_id, name=name)
        if self._repository.chunk_id(plain) != chunk_id:
            raise CorruptObject(f"{name} does not have the content its index says", remedy=_REMEDY)
        return plain


_REMEDY = "`failback verify --read` lists what is damaged; restore another point, or this one with --seed"
