"""Repair by relocation: chunks of damaged packs that are found elsewhere go into new packs, and a record says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import zstandard

from manifests.entry import ENTRY, FLAG_STORED, PackTable, Rows
from manifests.manifest import Disk
from manifests.names import pack_key
from manifests.pack import PackBuilder
from pipeline.errors import FormatError, Unreadable
from pipeline.exporters.base import Exporter
from pipeline.mend.wanted import Wanted, WantedPack, positions_of
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher
from pipeline.transfer.prove import Hasher
from pipeline.transfer.relocations import Moved, write_relocation

SOON_SECONDS = 600.0
"""A record that is written later than this after its pack may name one that a collector took."""
_TRIES = 3
_LEVEL = 3


@dataclass(frozen=True, slots=True)
class SurvivingDisk:
    """What is left of a disk of a point: it may have changed since."""

    disk: Disk
    exporter: Exporter


@dataclass(slots=True)
class Relocations:
    """Chunks stored again, by where they were found."""

    from_itself: int = 0
    from_points: int = 0
    from_disks: int = 0
    records: list[str] = field(default_factory=list)


def relocate(
    repository: Repository,
    wanted: Wanted,
    survivors: list[SurvivingDisk],
    *,
    tick: Callable[[], object] = lambda: None,
) -> Relocations:
    """Store again what can be found of the wanted chunks, pack by pack. Every chunk is proved by its id.

    Killed, the same call goes on with the packs that have no record yet; two at once cost space, nothing else.
    """
    done = Relocations()
    offers = [_Offer(repository, survivor, wanted.ids) for survivor in survivors]
    for pack in sorted(wanted.packs):
        want = wanted.packs[pack]
        found: dict[int, bytes] = {}
        for offset, place in sorted(want.chunks.items()):
            plain = _read(repository, place, want.chunk_size)
            if plain is not None:
                done.from_itself += 1
            elif (other := wanted.elsewhere.get(place.id)) is not None and (
                plain := _read(repository, other, want.chunk_size)
            ) is not None:
                done.from_points += 1
            else:
                plain = next((p for offer in offers if (p := offer.get(place.id, want.chunk_size)) is not None), None)
                done.from_disks += plain is not None
            if plain is not None:
                found[offset] = plain
            tick()
        if found:
            done.records += _store(repository, pack, want, found)
    return done


def _read(repository: Repository, place: Moved, chunk_size: int) -> bytes | None:
    try:
        return bytes(Fetcher(repository, chunk_size, PackTable()).chunk(place))
    except FormatError:
        return None


class _Offer:
    """The chunks of a surviving disk that are among the wanted ones."""

    def __init__(self, repository: Repository, survivor: SurvivingDisk, ids: set[bytes]) -> None:
        self._repository = repository
        self._chunk_size = survivor.disk.chunk_size
        self._hasher = Hasher(
            survivor.exporter,
            size=survivor.exporter.size,
            chunk_size=survivor.disk.chunk_size,
            chunk_id=repository.chunk_id,
        )
        self._end = -(-survivor.exporter.size // survivor.disk.chunk_size)
        self._positions: dict[bytes, list[int]] = {}
        for position, chunk_id in positions_of(repository, survivor.disk, ids):
            self._positions.setdefault(chunk_id, []).append(position)

    def get(self, chunk_id: bytes, chunk_size: int) -> bytes | None:
        """The chunk, from the first position that still holds it."""
        for position in self._positions.get(chunk_id, []) if chunk_size == self._chunk_size else ():
            if position >= self._end:
                break
            try:
                view = self._hasher.read(position, 1)
            except Unreadable:
                continue
            plain = bytes(view[:chunk_size])
            if self._repository.chunk_id(plain) == chunk_id:
                return plain
        return None


def _store(repository: Repository, pack: bytes, want: WantedPack, found: Mapping[int, bytes]) -> Iterator[str]:
    """Keys of the records: usually one. New packs come first, then the record, then a look whether they are there."""
    for _try in range(_TRIES):
        since = time.monotonic()
        again = _Packs(repository, want)
        for offset, plain in sorted(found.items()):
            again.add(offset, plain)
        again.close()
        if time.monotonic() - since > SOON_SECONDS:
            continue
        yield write_relocation(repository, pack, sorted(found), np.concatenate(again.rows), again.packs)
        if all(repository.store.head(pack_key(new)) is not None for new in again.packs.ids):
            return


class _Packs:
    """New packs for chunks of one old pack: usually one."""

    def __init__(self, repository: Repository, want: WantedPack) -> None:
        self.packs = PackTable()
        self.rows: list[Rows] = []
        """Entries of all chunks, in the order they were added; complete after `close`."""
        self._repository = repository
        self._want = want
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._begin()

    def _begin(self) -> None:
        want = self._want
        self._builder = PackBuilder(bytes.fromhex(want.lineage), want.chunk_size, self._repository.sealing)
        self._entries: list[tuple[object, ...]] = []

    def add(self, offset: int, plain: bytes) -> None:
        """The chunk that was at `offset` of the old pack."""
        packed: bytes = self._compressor.compress(plain)
        flags = 0
        if len(packed) >= len(plain):
            packed, flags = plain, FLAG_STORED
        chunk_id = self._want.chunks[offset].id
        slot, at, length = self._builder.add(self._want.positions[offset], chunk_id, packed, flags)
        self._entries.append((np.frombuffer(chunk_id, "<u8"), 0, at, length, slot, flags))
        if self._builder.full:
            self.close()

    def close(self) -> None:
        """Store the pack at hand."""
        if not self._entries:
            return
        pack, data = self._builder.seal()
        self._repository.store.put(pack_key(pack), data)
        rows = np.array(self._entries, ENTRY)
        rows["pack"] = self.packs.ordinal(pack)
        self.rows.append(rows)
        self._begin()
