"""Whom damage harms: points, disks, and byte ranges of the disks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from manifests.entry import ID_SIZE, ids_of
from manifests.manifest import Disk
from manifests.names import pack_key, page_key
from manifests.ranges import Range, join_ranges
from pipeline.catalogue import Point
from pipeline.errors import FormatError
from pipeline.mend.damage import Damage
from pipeline.mend.patient import PatientReader
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.prove import to_ranges
from pipeline.transfer.relocations import Moved, relocations_of


@dataclass(slots=True)
class Harm:
    """What one damaged object means for one disk of a point."""

    point: str
    disk: int
    key: str
    ranges: list[Range] = field(default_factory=list)
    """(offset, length) in bytes of the disk that cannot be restored. Empty: no content is lost."""
    relocated: int = 0
    """Chunks that were repaired: they are read from another place."""
    text: str = ""

    @property
    def bytes(self) -> int:
        return sum(length for _offset, length in self.ranges)


class Relocated:
    """Which chunks of bad packs can be had from elsewhere. Each pack is asked for once."""

    def __init__(self, repository: Repository, bad: Collection[bytes]) -> None:
        self._repository = repository
        self._bad = bad
        self._known: dict[bytes, dict[int, list[Moved]]] = {}
        self._there: dict[bytes, bool] = {}

    def __call__(self, pack: bytes, offset: int, chunk_id: bytes) -> bool:
        if pack not in self._known:
            self._known[pack] = relocations_of(self._repository, pack)
        return any(m.id == chunk_id and self._usable(m.pack) for m in self._known[pack].get(offset, []))

    def _usable(self, pack: bytes) -> bool:
        if pack not in self._there:
            self._there[pack] = pack not in self._bad and _listed(self._repository.store, pack_key(pack))
        return self._there[pack]


def _listed(store: Store, key: str) -> bool:
    """Whether it is there, for a janitor, too, who may list packs and not read them (HEAD is reading)."""
    folder = key[: key.rindex("/") + 1]
    return any(info.key == key for info in takewhile(lambda i: i.key <= key, store.list(folder, after=key[:-1])))


def harms_of(
    repository: Repository,
    damages: Iterable[Damage],
    points: Sequence[Point],
    *,
    tick: Callable[[], object] = lambda: None,
) -> list[Harm]:
    """Walks the indexes of the points whose pack lists name a damaged pack, and of those with a damaged index."""
    by_id = {damage.id: damage for damage in damages if damage.by_id}
    packs = {i for i, damage in by_id.items() if damage.key.startswith("packs/")}
    pages = by_id.keys() - packs
    relocated = Relocated(repository, packs)
    found: list[Harm] = []
    for point in points:
        for disk in point.manifest.disks:
            found += _disk(repository, point, disk, packs, pages, relocated)
            tick()
    return found


def _disk(
    repository: Repository, point: Point, disk: Disk, packs: set[bytes], pages: set[bytes], relocated: Relocated
) -> list[Harm]:
    label = point.manifest.label
    harms: dict[str, Harm] = {}

    def harm(key: str) -> Harm:
        return harms.setdefault(key, Harm(label, disk.number, key))

    for lost in pages & set(map(bytes.fromhex, disk.packs)):
        harm(page_key(lost)).text = "a pack list: nothing of the disk is lost, and it cannot be collected or compacted"
    try:
        mine = packs & packs_of(repository, disk).keys()
    except FormatError:
        mine = packs
    reader = PatientReader(repository, disk)
    if not mine and not (pages and _uses(reader, pages)):
        return list(harms.values())
    wanted = np.array([reader.packs.ordinal(pack) for pack in sorted(mine)], "<u4")
    positions: dict[bytes, list[int]] = {}
    try:
        for found, rows in reader.windows():
            hit = np.isin(rows["pack"], wanted)
            ids = ids_of(rows[hit])
            places = zip(found[hit].tolist(), rows["pack"][hit].tolist(), rows["offset"][hit].tolist(), strict=True)
            for i, (position, ordinal, offset) in enumerate(places):
                pack = reader.packs.ids[ordinal]
                if relocated(pack, offset, ids[ID_SIZE * i : ID_SIZE * (i + 1)]):
                    harm(pack_key(pack)).relocated += 1
                else:
                    positions.setdefault(pack, []).append(position)
    except FormatError as error:
        lost_all = harm(page_key(bytes.fromhex(disk.index.pages)))
        lost_all.ranges, lost_all.text = [(0, disk.size)], error.message
    for pack, at in positions.items():
        harm(pack_key(pack)).ranges = to_ranges(at, size=disk.size, chunk_size=disk.chunk_size)
    for key, (first, end) in reader.lost.items():
        span = (first * disk.chunk_size, min(end * disk.chunk_size, disk.size) - first * disk.chunk_size)
        harm(key).ranges = join_ranges([*harm(key).ranges, span], most=1 << 16)
        harm(key).text = "an index object: `failback salvage` finds what it said in the packs' tables"
    return [harms[key] for key in sorted(harms)]


def _uses(reader: PatientReader, pages: set[bytes]) -> bool:
    try:
        return not pages.isdisjoint(reader.objects())
    except FormatError:
        return True
