"""The page directory of a disk (FORMAT.md, section 6)."""

from __future__ import annotations

import struct

from manifests.entry import ID_SIZE, ZERO_ID
from manifests.errors import CorruptObject
from manifests.page import PAGE_POSITIONS

_HEAD = struct.Struct("<QII")


class PageDirectory:
    """Ids of the pages of a disk of `positions` chunks, kept as one byte string: 2 MiB for 16 TiB."""

    def __init__(self, positions: int, ids: bytearray | bytes | None = None) -> None:
        self.positions = positions
        self.count = -(-positions // PAGE_POSITIONS)
        self._ids = bytearray(ID_SIZE * self.count) if ids is None else bytearray(ids)

    def __getitem__(self, page: int) -> bytes:
        return bytes(self._ids[ID_SIZE * page : ID_SIZE * (page + 1)])

    def __setitem__(self, page: int, page_id: bytes) -> None:
        self._ids[ID_SIZE * page : ID_SIZE * (page + 1)] = page_id

    @property
    def ids(self) -> bytes:
        """Ids of all pages side by side; zeros for a page of zero chunks."""
        return bytes(self._ids)

    def size_of(self, page: int) -> int:
        """How many positions the page holds."""
        return min(PAGE_POSITIONS, self.positions - page * PAGE_POSITIONS)

    def stored(self) -> list[int]:
        """Numbers of the pages that are not all zero."""
        return [page for page in range(self.count) if self[page] != ZERO_ID]

    def encode(self) -> bytes:
        return _HEAD.pack(self.positions, self.count, 0) + bytes(self._ids)

    @classmethod
    def decode(cls, plain: bytes, *, name: str) -> PageDirectory:
        if len(plain) < _HEAD.size:
            raise CorruptObject(f"{name} is cut short")
        positions, count, zero = _HEAD.unpack_from(plain)
        if zero or count != -(-positions // PAGE_POSITIONS) or len(plain) != _HEAD.size + ID_SIZE * count:
            raise CorruptObject(f"{name} is damaged: {count} pages for {positions} positions")
        return cls(positions, plain[_HEAD.size :])
