"""Pages, overlay segments and journals: lists of index entries (FORMAT.md, sections 5 and 11)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manifests.entry import (
    ENTRY,
    FLAG_UNREADABLE,
    ID_SIZE,
    KNOWN_FLAGS,
    MAX_PACK,
    MAX_STORED_PACK,
    PACK_SLOTS,
    PackTable,
    Positions,
    Rows,
    is_zero,
)
from manifests.errors import CorruptObject, NewerFormat
from manifests.sealing import HEADER_SIZE

PAGE_POSITIONS = 4096
SEGMENT_ENTRIES = 16384
_HEAD = struct.Struct("<IIIIQ")
_ROW_SIZE = ID_SIZE + 4 + 4 + 4 + 2 + 2
_MAX_POSITIONS = 1 << 63
_PLACE = ("offset", "length", "slot")


def encode_page(first: int, rows: Rows, packs: PackTable) -> bytes:
    """Plain form of the page of positions first … first+len(rows)-1, at most 4,096 of them."""
    if len(rows) > PAGE_POSITIONS or first % PAGE_POSITIONS:
        raise ValueError(f"{len(rows)} positions from {first} are not a page")
    return _encode(first, None, rows, packs, disk=0)


def encode_segment(positions: Positions, rows: Rows, packs: PackTable) -> bytes:
    """Plain form of an overlay segment; `positions` ascend strictly; 16,384 at most."""
    return _encode_segment(positions, rows, packs, disk=0)


def encode_journal(disk: int, positions: Positions, rows: Rows, packs: PackTable, stored: Mapping[int, int]) -> bytes:
    """Plain form of a journal: a segment's with the disk's number, and the stored length of each pack by number."""
    plain = _encode_segment(positions, rows, packs, disk=disk)
    numbers = np.unique(rows["pack"][~is_zero(rows)]).tolist()
    lengths = {packs.ids[o]: stored[o] for o in numbers}
    if not all(HEADER_SIZE <= length <= MAX_STORED_PACK for length in lengths.values()):
        raise ValueError("a pack has a length that no pack has")
    return plain + np.array([lengths[i] for i in sorted(lengths)], "<u4").tobytes()


def _encode_segment(positions: Positions, rows: Rows, packs: PackTable, *, disk: int) -> bytes:
    if len(rows) > SEGMENT_ENTRIES or len(rows) != len(positions) or (positions[1:] <= positions[:-1]).any():
        raise ValueError(f"{len(rows)} entries at {len(positions)} positions are not a segment")
    return _encode(int(positions[0]) if len(positions) else 0, positions, rows, packs, disk=disk)


def _encode(first: int, positions: Positions | None, rows: Rows, packs: PackTable, *, disk: int) -> bytes:
    stored = ~is_zero(rows)
    ordinals, inverse = np.unique(rows["pack"][stored], return_inverse=True)
    ids = [packs.ids[int(o)] for o in ordinals]
    if any(len(i) != ID_SIZE for i in ids):
        raise ValueError("an entry is in a pack that has no id yet")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rank = np.empty(len(ids), "<u4")
    rank[order] = np.arange(len(ids), dtype="<u4")
    numbers = np.zeros(len(rows), "<u4")
    if len(ids):
        numbers[stored] = rank[inverse]
    parts = [
        _HEAD.pack(len(rows), len(ids), disk, 0, first),
        *(ids[i] for i in order),
        b"" if positions is None else np.ascontiguousarray(positions, "<u8").tobytes(),
        np.ascontiguousarray(rows["id"]).tobytes(),
        numbers.tobytes(),
    ]
    # Equal entries have equal bytes: a zero chunk is nowhere.
    parts += [np.where(stored, rows[column], 0).astype(ENTRY[column]).tobytes() for column in _PLACE]
    parts.append(np.where(stored, rows["flags"], rows["flags"] & FLAG_UNREADABLE).astype("<u2").tobytes())
    return b"".join(parts)


def decode_page(plain: bytes, packs: PackTable, *, first: int, count: int, name: str) -> Rows:
    """Entries of the page; raises CorruptObject when it is not the page of `count` positions from `first`."""
    found_first, disk, _positions, rows = _decode(plain, packs, dense=True, name=name)
    if disk or len(rows) > PAGE_POSITIONS:
        raise CorruptObject(f"{name} is not a page")
    if found_first != first or len(rows) != count:
        raise CorruptObject(f"{name} holds {len(rows)} positions from {found_first}, not {count} from {first}")
    return rows


def decode_segment(plain: bytes, packs: PackTable, *, name: str) -> tuple[Positions, Rows]:
    """(positions, entries) of an overlay segment. Raises CorruptObject."""
    _first, disk, positions, rows = _decode(plain, packs, dense=False, name=name)
    if disk:
        raise CorruptObject(f"{name} is not an overlay segment")
    return positions, rows


@dataclass(frozen=True, slots=True)
class Journal:
    """What one journal says: entries of a disk, and the stored length in bytes of each of their packs by number."""

    disk: int
    positions: Positions
    rows: Rows
    stored: dict[int, int]


def decode_journal(plain: bytes, packs: PackTable, *, name: str) -> Journal:
    """Raises CorruptObject."""
    damaged = CorruptObject(f"{name} is damaged: its entries do not add up")
    if len(plain) < _HEAD.size:
        raise damaged
    count = _HEAD.unpack_from(plain)[1]
    end = len(plain) - 4 * count
    if end < _HEAD.size + ID_SIZE * count:
        raise damaged
    lengths = np.frombuffer(plain, "<u4", count, end)
    if count and not HEADER_SIZE <= lengths.min() <= lengths.max() <= MAX_STORED_PACK:
        raise damaged
    _first, disk, positions, rows = _decode(plain[:end], packs, dense=False, name=name)
    ids = [plain[at : at + ID_SIZE] for at in range(_HEAD.size, _HEAD.size + ID_SIZE * count, ID_SIZE)]
    stored = {packs.ordinal(i): length for i, length in zip(ids, lengths.tolist(), strict=True)}
    return Journal(disk, positions, rows, stored)


def _decode(plain: bytes, packs: PackTable, *, dense: bool, name: str) -> tuple[int, int, Positions, Rows]:
    damaged = CorruptObject(f"{name} is damaged: its entries do not add up")
    if len(plain) < _HEAD.size:
        raise damaged
    count, pack_count, disk, zero, first = _HEAD.unpack_from(plain)
    size = _HEAD.size + ID_SIZE * pack_count + count * (_ROW_SIZE + (0 if dense else 8))
    if len(plain) != size or count > SEGMENT_ENTRIES or zero or first + count > _MAX_POSITIONS or (first and not count):
        raise damaged
    at = _HEAD.size
    pack_ids = [plain[at + ID_SIZE * i : at + ID_SIZE * (i + 1)] for i in range(pack_count)]
    if any(a >= b for a, b in pairwise(pack_ids)):
        raise damaged
    at += ID_SIZE * pack_count
    if dense:
        positions = np.arange(first, first + count, dtype="<u8")
    else:
        positions = np.frombuffer(plain, "<u8", count, at)
        at += 8 * count
        if count and (positions[0] != first or (positions[1:] <= positions[:-1]).any()):
            raise damaged
        if count and positions[-1] >= _MAX_POSITIONS:
            raise damaged
    rows = np.empty(count, ENTRY)
    rows["id"] = np.frombuffer(plain, "<u8", 4 * count, at).reshape(count, 4)
    at += ID_SIZE * count
    numbers = np.frombuffer(plain, "<u4", count, at)
    at += 4 * count
    for column in ("offset", "length", "slot", "flags"):
        rows[column] = np.frombuffer(plain, ENTRY[column], count, at)
        at += ENTRY[column].itemsize * count
    stored = ~is_zero(rows)
    if (rows["flags"] & ~np.uint16(KNOWN_FLAGS)).any():
        raise NewerFormat(f"{name} has unknown flags", remedy="upgrade failback on this host")
    # Each pack of the list is used, and no other: the distinct numbers are 0 … m-1.
    if not np.array_equal(np.unique(numbers[stored]), np.arange(pack_count)):
        raise damaged
    holes, kept = rows[~stored], rows[stored]
    if numbers[~stored].any() or (holes["flags"] & ~np.uint16(FLAG_UNREADABLE)).any():
        raise damaged
    if any(holes[column].any() for column in _PLACE):
        raise damaged
    ends = kept["offset"].astype(np.uint64) + kept["length"]
    if (kept["length"] == 0).any() or (kept["offset"] < HEADER_SIZE).any() or (ends > MAX_PACK).any():
        raise damaged
    if (kept["slot"] >= PACK_SLOTS).any():
        raise damaged
    table = np.array([packs.ordinal(i) for i in pack_ids], "<u4")
    rows["pack"] = 0
    rows["pack"][stored] = table[numbers[stored]]
    return first, disk, positions, rows
