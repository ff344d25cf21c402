"""Packs: many sealed chunks of one disk in one object (FORMAT.md, section 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from manifests.entry import FLAG_STORED, ID_SIZE, KNOWN_FLAGS, MAX_PACK, PACK_SLOTS, ZERO_ID, Positions
from manifests.envelope import (
    HEADER_SIZE,
    Kind,
    check_header,
    decode_body,
    decompress,
    encode_body,
    new_header,
    object_id,
)
from manifests.errors import CorruptObject, NewerFormat

PACK_SIZE = 8 << 20
FOOTER_SIZE = 32
_FOOTER = struct.Struct("<IIIIQ8s")
_FOOTER_MAGIC = b"kcabliaf"
_TABLE_HEAD = struct.Struct("<16sII")


class PackBuilder:
    """Collects the chunks of one pack. Offsets are final when a chunk is added; the id is known after `seal`."""

    def __init__(self, lineage: bytes, chunk_size: int) -> None:
        self.lineage = lineage
        self.chunk_size = chunk_size
        self.size = HEADER_SIZE
        self._payload: list[bytes] = []
        self._ids: list[bytes] = []
        self._positions: list[int] = []
        self._offsets: list[int] = []
        self._flags: list[int] = []

    def __len__(self) -> int:
        return len(self._payload)

    @property
    def full(self) -> bool:
        return self.size >= PACK_SIZE - self.chunk_size // 2 or len(self._payload) >= PACK_SLOTS

    def add(self, position: int, chunk_id: bytes, sealed: bytes, flags: int) -> tuple[int, int]:
        """Append a sealed chunk; returns (slot, offset)."""
        slot, offset = len(self._payload), self.size
        if slot >= PACK_SLOTS or offset + len(sealed) > MAX_PACK:
            raise ValueError("the pack is full")
        self._payload.append(sealed)
        self._ids.append(chunk_id)
        self._positions.append(position)
        self._offsets.append(offset)
        self._flags.append(flags)
        self.size += len(sealed)
        return slot, offset

    def seal(self, repository: bytes) -> tuple[bytes, bytes]:
        """(id, stored bytes). The payload is given up."""
        count = len(self._payload)
        lengths = np.array([len(p) for p in self._payload], "<u4")
        table = encode_body(
            _TABLE_HEAD.pack(self.lineage, count, self.chunk_size)
            + b"".join(self._ids)
            + np.array(self._positions, "<u8").tobytes()
            + np.array(self._offsets, "<u4").tobytes()
            + lengths.tobytes()
            + np.array(self._flags, "<u2").tobytes()
        )
        footer = _FOOTER.pack(self.size, len(table), count, self.chunk_size, 0, _FOOTER_MAGIC)
        data = b"".join([new_header(Kind.PACK, repository), *self._payload, table, footer])
        self._payload = []
        return object_id(data), data


@dataclass(frozen=True, slots=True)
class PackTableOfContents:
    """What a pack says of itself; columns by slot."""

    lineage: bytes
    chunk_size: int
    ids: list[bytes]
    positions: Positions
    offsets: NDArray[np.uint32]
    lengths: NDArray[np.uint32]
    flags: NDArray[np.uint16]


def read_table(data: bytes | memoryview, *, repository: bytes, name: str) -> PackTableOfContents:
    """The table of a whole pack object, for salvage and deep checks. Raises CorruptObject."""
    view = memoryview(data)
    if check_header(view, repository=repository, name=name) != Kind.PACK:
        raise CorruptObject(f"{name} is not a pack")
    start = table_start(view, size=len(view), name=name)
    return decode_table(view[start:], size=len(view), name=name)


def table_start(tail: bytes | memoryview, *, size: int, name: str) -> int:
    """Where the table of a pack object of `size` bytes begins, told by its last bytes: FOOTER_SIZE at least.

    Raises CorruptObject.
    """
    damaged = CorruptObject(f"{name} has a damaged table of contents")
    if size < HEADER_SIZE + FOOTER_SIZE or len(tail) < FOOTER_SIZE:
        raise damaged
    at, length, count, _chunk_size, zero, magic = _FOOTER.unpack_from(tail, len(tail) - FOOTER_SIZE)
    if magic != _FOOTER_MAGIC or zero or at < HEADER_SIZE or at + length + FOOTER_SIZE != size or count > PACK_SLOTS:
        raise damaged
    return int(at)


def decode_table(end: bytes | memoryview, *, size: int, name: str) -> PackTableOfContents:
    """The table of a pack object of `size` bytes, from all its bytes behind `table_start`. Raises CorruptObject.

    Only a pack read whole and compared with its id proves its table; what was read by a range is a hint.
    """
    view = memoryview(end)
    table_at = table_start(view, size=size, name=name)
    damaged = CorruptObject(f"{name} has a damaged table of contents")
    _at, length, count, chunk_size, _zero, _magic = _FOOTER.unpack_from(view, len(view) - FOOTER_SIZE)
    if length + FOOTER_SIZE != len(view):
        raise damaged
    plain = decode_body(view[:length], name=name)
    if len(plain) != _TABLE_HEAD.size + count * (ID_SIZE + 8 + 4 + 4 + 2):
        raise damaged
    lineage, found, in_table = _TABLE_HEAD.unpack_from(plain)
    if found != count or in_table != chunk_size:
        raise damaged
    at = _TABLE_HEAD.size
    ids = [plain[at + ID_SIZE * i : at + ID_SIZE * (i + 1)] for i in range(count)]
    at += ID_SIZE * count
    columns = []
    for dtype in ("<u8", "<u4", "<u4", "<u2"):
        columns.append(np.frombuffer(plain, dtype, count, at))
        at += count * np.dtype(dtype).itemsize
    positions, offsets, lengths, flags = columns
    ends = offsets.astype(np.uint64) + lengths
    if [*offsets, table_at] != [HEADER_SIZE, *ends] or ZERO_ID in ids or (lengths == 0).any():
        raise damaged
    if (flags & ~np.uint16(KNOWN_FLAGS)).any():
        raise NewerFormat(f"{name} has unknown flags", remedy="upgrade failback on this host")
    return PackTableOfContents(lineage, chunk_size, ids, positions, offsets, lengths, flags)


class ChunkDecoder:
    """Opens sealed chunks; holds one decompression context, so use one per thread."""

    def __init__(self, chunk_size: int) -> None:
        self.chunk_size = chunk_size
        self._zstd = zstandard.ZstdDecompressor()

    def decode(self, sealed: memoryview, flags: int, *, name: str) -> bytes | memoryview:
        """The plain chunk, exactly `chunk_size` bytes; its id is not checked yet. Raises CorruptObject."""
        if flags & FLAG_STORED:
            plain: bytes | memoryview = sealed
        else:
            plain = decompress(self._zstd, sealed, self.chunk_size, name=name)
        if len(plain) != self.chunk_size:
            raise CorruptObject(f"{name} has {len(plain)} bytes instead of {self.chunk_size}")
        return plain
