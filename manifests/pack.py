"""Packs: many sealed chunks of one disk in one object (FORMAT.md, section 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard
from blake3 import blake3
from numpy.typing import NDArray

from manifests.entry import FLAG_STORED, ID_SIZE, KNOWN_FLAGS, MAX_PACK, PACK_SLOTS, ZERO_ID, Positions
from manifests.envelope import (
    Kind,
    check_header,
    decode_body,
    decompress,
    encode_body,
    new_header,
    object_id,
)
from manifests.errors import CorruptObject, NewerFormat
from manifests.sealing import HEADER_SIZE, TAG_SIZE, ObjectKey, Sealing

PACK_SIZE = 8 << 20
FOOTER_SIZE = 32
_FOOTER = struct.Struct("<IIIIQ8s")
_FOOTER_MAGIC = b"kcabliaf"
_TABLE_HEAD = struct.Struct("<16sII")


class PackBuilder:
    """Collects the chunks of one pack. Offsets are final when a chunk is added; the id is known after `seal`."""

    def __init__(self, lineage: bytes, chunk_size: int, sealing: Sealing) -> None:
        self.lineage = lineage
        self._sealing = sealing
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

    def add(self, position: int, chunk_id: bytes, packed: bytes, flags: int) -> tuple[int, int, int]:
        """Append a chunk, compressed or not; returns (slot, offset, stored length). It is sealed with the pack."""
        slot, offset, length = len(self._payload), self.size, len(packed) + self._sealing.overhead
        if slot >= PACK_SLOTS or offset + length > MAX_PACK:
            raise ValueError("the pack is full")
        self._payload.append(packed)
        self._ids.append(chunk_id)
        self._positions.append(position)
        self._offsets.append(offset)
        self._flags.append(flags)
        self.size += length
        return slot, offset, length

    def seal(self) -> tuple[bytes, bytes | bytearray]:
        """(id, stored bytes). The payload is given up."""
        payload, self._payload = self._payload, []
        overhead = self._sealing.overhead
        plain = (
            _TABLE_HEAD.pack(self.lineage, len(payload), self.chunk_size)
            + b"".join(self._ids)
            + np.array(self._positions, "<u8").tobytes()
            + np.array(self._offsets, "<u4").tobytes()
            + np.array([len(p) + overhead for p in payload], "<u4").tobytes()
            + np.array(self._flags, "<u2").tobytes()
        )
        # The table has the ids of all chunks: it stands for the contents.
        header = new_header(Kind.PACK, self._sealing, blake3(plain).digest())
        key = self._sealing.data_key(header)
        table = encode_body(plain, key)
        footer = _FOOTER.pack(self.size, len(table), len(payload), self.chunk_size, 0, _FOOTER_MAGIC)
        if key is None:
            whole = b"".join([header, *payload, table, footer])
            return object_id(whole), whole
        # Sealed where it has to lie: joining sealed chunks would be one more pass over all of them.
        data = bytearray(self.size + len(table) + FOOTER_SIZE)
        view = memoryview(data)
        view[:HEADER_SIZE] = header
        for slot, (chunk_id, offset) in enumerate(zip(self._ids, self._offsets, strict=True)):
            end = offset + len(payload[slot]) + overhead
            key.seal_chunk_into(slot, payload[slot], chunk_id, view[offset:end])
        view[self.size :] = table + footer
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


def read_table(data: bytes | memoryview, *, sealing: Sealing, name: str) -> PackTableOfContents:
    """The table of a whole pack object, for salvage and deep checks. Raises CorruptObject."""
    view = memoryview(data)
    if check_header(view, sealing=sealing, name=name) != Kind.PACK:
        raise CorruptObject(f"{name} is not a pack")
    start = table_start(view, size=len(view), name=name)
    return decode_table(view[start:], size=len(view), key=sealing.data_key(view), name=name)


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


def decode_table(end: bytes | memoryview, *, size: int, key: ObjectKey | None = None, name: str) -> PackTableOfContents:
    """The table of a pack object of `size` bytes, from all its bytes behind `table_start`. Raises CorruptObject.

    Only a pack read whole and compared with its id proves its table; what was read by a range is a hint.
    """
    view = memoryview(end)
    table_at = table_start(view, size=size, name=name)
    damaged = CorruptObject(f"{name} has a damaged table of contents")
    _at, length, count, chunk_size, _zero, _magic = _FOOTER.unpack_from(view, len(view) - FOOTER_SIZE)
    if length + FOOTER_SIZE != len(view):
        raise damaged
    plain = decode_body(view[:length], key, name=name)
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
        self._buffer = memoryview(bytearray(chunk_size + TAG_SIZE))
        """For frames, which are shorter than their chunk."""

    def decode(
        self,
        sealed: memoryview,
        flags: int,
        *,
        key: ObjectKey | None = None,
        slot: int = 0,
        chunk_id: bytes = b"",
        name: str,
    ) -> bytes | memoryview:
        """The plain chunk, exactly `chunk_size` bytes; its id is not checked yet. Raises CorruptObject.

        `key`: that of its pack when it is encrypted, as `Sealing.data_key` gives it, with the chunk's slot and id.
        """
        plain: bytes | memoryview
        if flags & FLAG_STORED:
            plain = sealed if key is None else key.open(slot, sealed, chunk=chunk_id, name=name)
        elif key is None:
            plain = decompress(self._zstd, sealed, self.chunk_size, name=name)
        else:
            if len(sealed) > len(self._buffer):
                raise CorruptObject(f"{name} is longer than a chunk")
            packed = key.open_chunk_into(slot, sealed, chunk_id, self._buffer, name=name)
            plain = decompress(self._zstd, packed, self.chunk_size, name=name)
        if len(plain) != self.chunk_size:
            raise CorruptObject(f"{name} has {len(plain)} bytes instead of {self.chunk_size}")
        return plain
