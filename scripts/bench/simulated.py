"""A repository that only seems to be there: a million packs and a thousand points, made as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
from blake3 import blake3

from manifests.directory import PageDirectory
from manifests.envelope import Kind, seal_by_id
from manifests.machine import Machine
from manifests.manifest import Disk, Index, Manifest, Parent, Segment, Tier
from manifests.names import manifest_key, page_key
from manifests.packlist import MAX_PACKS
from manifests.repository import DEFAULT_CHUNK_SIZE, KEY, RepositoryDocument
from pipeline.repository import Repository
from pipeline.store.base import Bytes, ObjectInfo
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore

PAGE = 1000
"""Keys in one answer to a listing."""
_PACK = 8 << 20
_OLD = timedelta(days=30)


class PagedStore(Layer):
    """Counts requests as S3 would be asked them: a listing is one for each thousand keys; what is read twice is told.

    Packs are an array of ids; everything else lies in memory.
    """

    def __init__(self, packs: np.ndarray) -> None:
        super().__init__(MemoryStore("simulated://"))
        self.packs = packs
        self.requests = {"list": 0, "get": 0, "head": 0, "put": 0, "delete": 0}
        self.read: set[str] = set()
        self.twice: list[str] = []
        self.made = datetime.now(UTC) - _OLD

    def get(self, key: str) -> memoryview:
        self.requests["get"] += 1
        if key in self.read:
            self.twice.append(key)
        self.read.add(key)
        return self.inner.get(key)

    def head(self, key: str) -> ObjectInfo | None:
        self.requests["head"] += 1
        return self._timed(self.inner.head(key))

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        self.requests["put"] += 1
        self.inner.put(key, data, create=create)

    def delete_many(self, keys: Iterable[str]) -> None:
        for number, key in enumerate(keys):
            self.requests["delete"] += number % PAGE == 0
            if not key.startswith("packs/"):
                self.inner.delete_many([key])

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        found = self._packs() if prefix == "packs/" else map(self._timed, self.inner.list(prefix, after=after))
        self.requests["list"] += 1
        for number, info in enumerate(found):
            self.requests["list"] += number % PAGE == 0 and number > 0
            assert info is not None
            yield info

    def _timed(self, info: ObjectInfo | None) -> ObjectInfo | None:
        if info is None or info.key == "gc/clock":
            return info
        return ObjectInfo(info.key, info.size, self.made)

    def _packs(self) -> Iterator[ObjectInfo]:
        for raw in self.packs:
            digits = raw.ljust(32, b"\0").hex()
            yield ObjectInfo(f"packs/{digits[:2]}/{digits}", _PACK, self.made)


def simulated(*, packs: int, points: int, machines: int, doomed: float, seed: int) -> PagedStore:
    """A store with a repository in it: each machine has one disk, a base of packs and points that add some to it, with
    a directory of 2,048 pages (512 GiB); every tenth point writes its page directory anew. A share of the packs is in
    no point."""
    draw = np.random.default_rng(seed)
    ids = np.sort(np.frombuffer(draw.bytes(32 * packs), "S32"))
    store = PagedStore(ids)
    document = RepositoryDocument.new(chunk_size=DEFAULT_CHUNK_SIZE, abilities={"conditional_put": True})
    store.inner.put(KEY, document.encode())
    repository = Repository(store.inner, document)
    order = draw.permutation(packs)[: round(packs * (1 - doomed))]
    for number, mine in enumerate(np.array_split(order, machines)):
        _machine(repository, f"machine-{number:04d}", ids[mine], -(-points // machines), draw)
    return store


def _machine(repository: Repository, name: str, ids: np.ndarray, points: int, draw: np.random.Generator) -> None:
    share = max(len(ids) // (2 * points), 1)
    base = len(ids) - share * (points - 1)
    lists = [_packs(repository, ids[:base])]
    positions = 2048 * 4096
    parent, segments = None, list[Segment]()
    pages = _directory(repository, positions, draw)
    for sequence in range(1, points + 1):
        if sequence > 1:
            at = base + share * (sequence - 2)
            lists.append(_packs(repository, ids[at : at + share]))
            raw = _put(repository, Kind.SEGMENT, draw.bytes(200))
            segments.append(Segment(id=raw, first=len(segments) * 10, last=len(segments) * 10 + 5, count=5))
        if sequence % 10 == 0:
            pages, segments = _directory(repository, positions, draw), []
        disk = Disk(
            number=0, lineage=f"{hash(name) & (2**128 - 1):032x}", name="/dev/sda", size=positions << 16,
            chunk_size=DEFAULT_CHUNK_SIZE, digest="0" * 64,
            index=Index(pages=pages, tiers=(Tier(segments=tuple(segments)),) if segments else ()),
            packs=tuple(lists), base_lists=1,
        )  # fmt: skip
        manifest = Manifest(
            machine=Machine(name=name), sequence=sequence, parent=parent, started="2026-01-01T00:00:00Z",
            time="2026-01-01T00:00:00Z", tool="benchmark", run=f"{sequence:010d}-0001", consistency="crash",
            disks=(disk,),
        )  # fmt: skip
        data = manifest.encode(repository.sealing)
        repository.store.put(manifest_key(name, sequence), data)
        parent = Parent(sequence=sequence, manifest=blake3(data).hexdigest())


def _directory(repository: Repository, positions: int, draw: np.random.Generator) -> str:
    directory = PageDirectory(positions)
    for page in range(0, directory.count, 64):
        directory[page] = bytes.fromhex(_put(repository, Kind.PAGE, draw.bytes(500)))
    return _put(repository, Kind.PAGE_DIRECTORY, directory.encode())


def _packs(repository: Repository, ids: np.ndarray) -> str:
    assert len(ids) <= MAX_PACKS
    ids = np.sort(ids)
    raw = b"".join(i.ljust(32, b"\0") for i in ids)
    plain = len(ids).to_bytes(4, "little") + bytes(4) + raw
    plain += np.full(len(ids), _PACK, "<u4").tobytes() + np.full(len(ids), _PACK // 3, "<i8").tobytes()
    return _put(repository, Kind.PACK_LIST, plain)


def _put(repository: Repository, kind: Kind, plain: bytes) -> str:
    object_id, data = seal_by_id(kind, plain, sealing=repository.sealing)
    repository.store.put(page_key(object_id), data)
    return object_id.hex()
