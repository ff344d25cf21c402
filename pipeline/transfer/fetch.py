"""From index entries to plain chunks: which ranges of which packs to get, decoded and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, ids_of
from manifests.names import pack_key
from manifests.pack import ChunkDecoder
from manifests.sealing import ObjectKey
from pipeline.errors import CorruptObject, FormatError
from pipeline.repository import Repository
from pipeline.transfer.relocations import Moved, relocations_of

GAP = 1 << 20
"""Unneeded bytes inside a pack that are rather read than asked around."""


ReadPack = Callable[[bytes, int, int], tuple[memoryview, int, ObjectKey | None]]


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
        self._relocations: tuple[bytes, dict[int, list[Moved]]] = (b"", {})
        self._old: tuple[bytes, tuple[memoryview, ObjectKey | None] | None] = (b"", None)
        """The pack that was asked for last in an older version, and that one, if there is any."""
        self.fetched = 0
        """Bytes got from the store."""

    def chunks(self, job: PackJob, *, read: ReadPack | None = None) -> Iterator[tuple[int, bytes | memoryview]]:
        """(position, plain chunk) by offset. Each chunk has the id that the index says. Raises CorruptObject.

        `read`: in place of the repository's `read_pack`, for what was fetched before.
        What cannot be read where the index says it is comes from where it was relocated to, if it was.
        """
        pack = self._packs.ids[job.pack]
        positions, ids = job.positions.tolist(), ids_of(job.rows)
        columns = (job.rows[c].tolist() for c in ("offset", "length", "slot", "flags"))
        places = [
            Moved(ids[i * ID_SIZE : (i + 1) * ID_SIZE], pack, *place)
            for i, place in enumerate(zip(*columns, strict=True))
        ]
        last: tuple[int, bytes | memoryview] = (-1, b"")
        for first, end in job.ranges():
            start = places[first].offset
            stop = max(place.offset + place.length for place in places[first:end])
            data: memoryview | None = None
            try:
                data, start, cipher = (read or self._repository.read_pack)(pack, start, stop - start)
                self.fetched += len(data)
            except FormatError as error:
                failure = error
            for i in range(first, end):
                place = places[i]
                if place.offset == last[0]:
                    yield positions[i], last[1]  # the same chunk at another position
                    continue
                try:
                    if data is None:
                        raise failure
                    at = place.offset - start
                    plain = self._opened(data[at : at + place.length], cipher, place)
                except FormatError as error:
                    plain = self._elsewhere(place, error, alone=data is None and end - first > 1)
                last = (place.offset, plain)
                yield positions[i], plain

    def chunk(self, place: Moved) -> bytes | memoryview:
        """The one chunk at this very place. Raises FormatError."""
        data, start, cipher = self._repository.read_pack(place.pack, place.offset, place.length)
        self.fetched += len(data)
        at = place.offset - start
        return self._opened(data[at : at + place.length], cipher, place)

    def _opened(self, sealed: memoryview, cipher: ObjectKey | None, place: Moved) -> bytes | memoryview:
        name = f"{pack_key(place.pack)}, the chunk at byte {place.offset},"
        try:
            plain = self._decoder.decode(sealed, place.flags, key=cipher, slot=place.slot, chunk_id=place.id, name=name)
        except CorruptObject:
            self._repository.forget_key(place.pack)  # it may be the envelope that was damaged
            raise
        if self._repository.chunk_id(plain) != place.id:
            raise CorruptObject(f"{name} does not have the content its index says", remedy=_REMEDY)
        return plain

    def _older(self, place: Moved, error: FormatError) -> bytes | memoryview | None:
        if self._old[0] != place.pack:
            try:
                found = self._repository.older_pack(place.pack, error)
                self.fetched += len(found[0])
                self._old = place.pack, found
            except FormatError:
                self._old = place.pack, None
        if self._old[1] is None:
            return None
        data, cipher = self._old[1]
        return self._opened(data[place.offset : place.offset + place.length], cipher, place)

    def _elsewhere(self, place: Moved, error: FormatError, *, alone: bool) -> bytes | memoryview:
        """The chunk from an older version of its pack, or from where it was relocated to; `alone`: by itself, when only
        the range it was in failed."""
        plain = self._older(place, error)
        if plain is not None:
            return plain
        if self._relocations[0] != place.pack:
            self._relocations = place.pack, relocations_of(self._repository, place.pack)
        candidates = [m for m in self._relocations[1].get(place.offset, []) if m.id == place.id]
        for candidate in [*candidates, *([place] if alone else [])]:
            try:
                return self.chunk(candidate)
            except FormatError:
                continue
        error.remedy = error.remedy or _REMEDY  # a store knows that a pack is cut short, not what to do
        raise error


_REMEDY = "`failback scrub` names what is damaged, `failback repair` mends it from a copy or a surviving disk"
