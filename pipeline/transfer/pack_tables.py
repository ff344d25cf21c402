"""What packs say of themselves: read from their ends, without the chunks."""

from __future__ import annotations

from manifests.names import pack_key
from manifests.pack import PackTableOfContents, decode_table, table_start
from pipeline.repository import Repository

_TAIL = 32 << 10
"""Bytes asked for at the end of a pack: the table of 600 chunks and more."""


def pack_table(repository: Repository, pack: bytes, size: int) -> PackTableOfContents:
    """The table of a pack object of `size` bytes, by one ranged GET from its end (two when it is long). It is a hint:
    only a pack that is read whole proves its table. Raises FormatError."""
    name = pack_key(pack)
    at = max(size - _TAIL, 0)
    tail = bytes(repository.get_pack_range(pack, at, size - at))
    start = table_start(tail, size=size, name=name)
    if start < at:
        tail = bytes(repository.get_pack_range(pack, start, at - start)) + tail
        at = start
    return decode_table(tail[start - at :], size=size, key=repository.pack_key(pack), name=name)
