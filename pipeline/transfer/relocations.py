"""Relocations: where chunks of a lost or damaged pack are now (FORMAT.md, section 14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Rows, ids_of, is_zero
from manifests.envelope import Kind, open_by_place, seal_by_place
from manifests.names import relocation_key, relocations_prefix
from manifests.page import decode_segment, encode_segment
from pipeline.errors import AlreadyExists, CorruptObject, FormatError, NotFound
from pipeline.repository import Repository


@dataclass(frozen=True, slots=True)
class Moved:
    """A chunk that is at another place now."""

    id: bytes
    pack: bytes
    offset: int
    length: int
    slot: int
    flags: int


def relocations_of(repository: Repository, pack: bytes) -> dict[int, list[Moved]]:
    """By offset in `pack`: the places its chunks may be had from. A record that is damaged says nothing."""
    found: dict[int, list[Moved]] = {}
    for info in list(repository.store.list(relocations_prefix(pack))):
        try:
            for offset, moved in read_relocation(repository, info.key):
                found.setdefault(offset, []).append(moved)
        except (FormatError, NotFound):
            continue
    return found


def relocated_packs(repository: Repository) -> dict[bytes, list[str]]:
    """Keys of all relocation records, by the old pack. Raises CorruptObject for a key that is none of failback."""
    found: dict[bytes, list[str]] = {}
    for info in repository.store.list("relocations/"):
        try:
            pack = bytes.fromhex(info.key.split("/")[2])
        except (ValueError, IndexError) as error:
            raise CorruptObject(
                f"{info.key} is not a key of failback", remedy="remove it, if you know who put it there"
            ) from error
        found.setdefault(pack, []).append(info.key)
    return found


def read_relocation(repository: Repository, key: str) -> Iterator[tuple[int, Moved]]:
    """(offset in the old pack, where that chunk is now) of one record. Raises FormatError, NotFound."""
    data = repository.store.get(key)
    _kind, plain = open_by_place(memoryview(data), Kind.RELOCATION, sealing=repository.sealing, key=key)
    packs = PackTable()
    offsets, rows = decode_segment(plain, packs, name=key)
    if is_zero(rows).any():
        raise CorruptObject(f"{key} relocates a chunk of zeros")
    ids = ids_of(rows)
    columns = (rows[c].tolist() for c in ("pack", "offset", "length", "slot", "flags"))
    for i, (offset, ordinal, *place) in enumerate(zip(offsets.tolist(), *columns, strict=True)):
        yield offset, Moved(ids[ID_SIZE * i : ID_SIZE * (i + 1)], packs.ids[ordinal], *place)


def write_relocation(repository: Repository, pack: bytes, offsets: list[int], rows: Rows, packs: PackTable) -> str:
    """Say that the chunks at ascending `offsets` of `pack` are where `rows` say; returns the record's key."""
    plain = encode_segment(np.array(offsets, "<u8"), rows, packs)
    taken = [int(info.key.rsplit("/", 1)[1]) for info in repository.store.list(relocations_prefix(pack))]
    number = max(taken, default=-1) + 1
    while True:
        key = relocation_key(pack, number)
        data = seal_by_place(Kind.RELOCATION, plain, sealing=repository.sealing, key=key)
        try:
            repository.store.put(key, data, create=repository.conditional_put)
            return key
        except AlreadyExists:
            number += 1
