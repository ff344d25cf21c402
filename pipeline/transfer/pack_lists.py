"""Pack lists of a disk: read, added up and stored (FORMAT.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from manifests.envelope import Kind
from manifests.manifest import Disk
from manifests.names import page_key
from manifests.packlist import PackUse, add_up, decode_pack_list, encode_pack_list, split_pack_list
from pipeline.repository import Repository

Put = Callable[[Kind, bytes], "Future[tuple[bytes, int]]"]
"""Stores a page object in the background; the future gives (id, stored length)."""


@dataclass(frozen=True, slots=True)
class PackLists:
    """Ids of a disk's pack lists; the first `base` of them are the base, the others changes."""

    ids: tuple[str, ...]
    base: int


def packs_of(repository: Repository, disk: Disk) -> dict[bytes, PackUse]:
    """Every pack the disk names. Raises CorruptObject when a pack list is missing or damaged."""
    return add_up(read_lists(repository, disk.packs))


def read_lists(repository: Repository, ids: Iterable[str]) -> Iterator[dict[bytes, PackUse]]:
    """Pack lists one by one. Raises CorruptObject."""
    for raw in map(bytes.fromhex, ids):
        yield decode_pack_list(repository.get_page_object(Kind.PACK_LIST, raw), name=page_key(raw))


def put_lists(put: Put, packs: dict[bytes, PackUse]) -> tuple[str, ...]:
    """Store one list, or several where one would be too long; their ids."""
    stored = [put(Kind.PACK_LIST, encode_pack_list(part)) for part in split_pack_list(packs)]
    return tuple(future.result()[0].hex() for future in stored)
