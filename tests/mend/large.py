"""A repository of many tebibytes, of which only what a listing scrub reads is stored; its listings are made up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

from manifests.directory import PageDirectory
from manifests.envelope import Kind
from manifests.machine import Machine
from manifests.manifest import Disk, Index, Manifest
from manifests.names import manifest_key, pack_key, page_key
from manifests.packlist import PackUse, encode_pack_list, split_pack_list
from pipeline.repository import Repository
from pipeline.store.base import ObjectInfo
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore

CHUNK = 64 << 10
PACK = 8 << 20
KEYS_A_PAGE = 1000


class CountingStore(Layer):
    """Counts requests as S3 does: one for each page of a listing. Packs and pages that are only ids are listed too."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.requests = 0
        self.packs: list[bytes] = []
        self.pages: list[bytes] = []

    def get(self, key: str) -> memoryview:
        self.requests += 1
        return super().get(key)

    def head(self, key: str) -> ObjectInfo | None:
        self.requests += 1
        return super().head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        count = 0
        for count, info in enumerate(self._listed(prefix, after), start=1):
            self.requests += count % KEYS_A_PAGE == 1
            yield info
        self.requests += not count

    def _listed(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        now = datetime.now(UTC)
        if prefix == "packs/":
            yield from (ObjectInfo(pack_key(pack), PACK, now) for pack in self.packs)
        elif prefix == "pages/":
            yield from (ObjectInfo(page_key(page), 400_000, now) for page in sorted(self.pages))
        else:
            yield from super().list(prefix, after=after)


def large_repository(*, tebibytes: int, points: int) -> tuple[Repository, CountingStore]:
    """One disk of so many TiB, all stored, and so many points of it that each change a thousandth."""
    store = CountingStore()
    repository = Repository.init(store)
    size = tebibytes << 40
    store.packs = sorted(secrets.token_bytes(32) for _ in range(size // PACK))

    def put(kind: Kind, plain: bytes) -> str:
        object_id, _stored = repository.put_page_object(kind, plain)
        store.pages.append(object_id)
        return object_id.hex()

    directory = PageDirectory(size // CHUNK)
    for number in range(directory.count):
        directory[number] = secrets.token_bytes(32)
        store.pages.append(directory[number])
    index = Index(pages=put(Kind.PAGE_DIRECTORY, directory.encode()))
    base = tuple(
        put(Kind.PACK_LIST, encode_pack_list(part))
        for part in split_pack_list({pack: PackUse(PACK, PACK) for pack in store.packs})
    )
    for sequence in range(1, points + 1):
        # What a point changes names packs that the base has: the number of objects stays what it is.
        change = {pack: PackUse(0, -1) for pack in store.packs[sequence::1000]}
        lists = (*base, put(Kind.PACK_LIST, encode_pack_list(change)))
        disk = Disk(
            number=0, lineage="0" * 32, name="disk", size=size, chunk_size=CHUNK, digest="0" * 64, index=index,
            packs=lists, base_lists=len(base),
        )  # fmt: skip
        manifest = Manifest(
            machine=Machine(name="vm"), sequence=sequence, started="", time="", tool="", run="", consistency="crash",
            disks=(disk,),
        )  # fmt: skip
        store.put(manifest_key("vm", sequence), manifest.encode(repository.sealing))
    store.requests = 0
    return repository, store
