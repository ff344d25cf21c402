"""What points need: packs by their pack lists, index objects by page directories and tiers. Each is read once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manifests.directory import PageDirectory
from manifests.entry import ID_SIZE
from manifests.envelope import Kind
from manifests.manifest import Disk
from manifests.names import page_key
from manifests.packlist import decode_columns
from manifests.segment_table import table_ids
from pipeline.collect.inventory import Ids, Inventory, ids_array
from pipeline.errors import CorruptObject, StoreError
from pipeline.repository import Repository
from pipeline.transfer.relocations import read_relocation, relocated_packs


@dataclass(frozen=True, slots=True)
class _List:
    """One pack list: where its packs are in the inventory, and their live bytes."""

    id: str
    at: NDArray[np.intp]
    live: NDArray[np.int64]


@dataclass(slots=True)
class _Chain:
    """The pack lists of a lineage as of the point that was looked at last, added up."""

    lists: list[_List] = field(default_factory=list)
    at: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    live: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, more: _List) -> None:
        self.lists.append(more)
        where = np.searchsorted(self.at, more.at)
        known = np.zeros(len(more.at), bool)
        inside = where < len(self.at)
        known[inside] = self.at[where[inside]] == more.at[inside]
        self.live[where[known]] += more.live[known]
        if not known.all():
            self.at = np.insert(self.at, where[~known], more.at[~known])
            self.live = np.insert(self.live, where[~known], more.live[~known])

    def cut(self, count: int) -> None:
        """Keep the first `count` lists."""
        if count < len(self.lists):
            kept = self.lists[:count]
            self.lists, self.at, self.live = [], np.zeros(0, np.intp), np.zeros(0, np.int64)
            for more in kept:
                self.add(more)


class Needs:
    """Marks what is needed as live in both inventories. Points of one machine come in order."""

    def __init__(self, repository: Repository, packs: Inventory, pages: Inventory) -> None:
        self.repository = repository
        self.packs, self.pages = packs, pages
        self.most = np.zeros(len(packs.ids), np.int64)
        """By pack: the live bytes of the point that uses most of it."""
        self._relocated = relocated_packs(repository)
        self._gone: set[bytes] = set()
        """Packs that points name, that are missing, and that were relocated."""
        self._chains: dict[str, _Chain] = {}
        self._read: set[str] = set()
        """Directories and segment tables of the machine at hand that were read."""

    def next_machine(self) -> None:
        """Points of another machine follow: no list is shared with them."""
        self._chains, self._read = {}, set()

    def add(self, disk: Disk, *, label: str, whole: bool) -> None:
        """`whole`: the listing must have all that the disk needs, since its manifest is older.

        Raises CorruptObject when something is missing or damaged, StoreError when the listing left something out.
        """
        self._add_index(disk, label, whole)
        self._add_packs(disk, label, whole)

    def _add_index(self, disk: Disk, label: str, whole: bool) -> None:
        own = [disk.index.pages, *disk.packs]
        for tier in disk.index.tiers:
            own += [segment.id for segment in tier.segments]
            if tier.table is not None:
                own.append(tier.table)
                if tier.table not in self._read:
                    plain = self._get(Kind.SEGMENT_TABLE, tier.table)
                    ids = table_ids(plain, name=page_key(bytes.fromhex(tier.table)))
                    self._mark(self.pages, ids_array(ids), label, whole)
        self._mark(self.pages, ids_array(bytes.fromhex("".join(own))), label, whole)
        if disk.index.pages not in self._read:
            name = page_key(bytes.fromhex(disk.index.pages))
            directory = PageDirectory.decode(self._get(Kind.PAGE_DIRECTORY, disk.index.pages), name=name)
            pages = ids_array(directory.ids)
            self._mark(self.pages, pages[pages != b""], label, whole)

    def _add_packs(self, disk: Disk, label: str, whole: bool) -> None:
        chain = self._chains.setdefault(disk.lineage, _Chain())
        same = 0
        while same < min(len(chain.lists), len(disk.packs)) and chain.lists[same].id == disk.packs[same]:
            same += 1
        chain.cut(same)
        for list_id in disk.packs[same:]:
            plain = self._get(Kind.PACK_LIST, list_id, again=True)
            ids, _stored, live = decode_columns(plain, name=page_key(bytes.fromhex(list_id)))
            there, at = self._mark(self.packs, ids_array(ids), label, whole)
            chain.add(_List(list_id, at, live[there]))
        np.maximum.at(self.most, chain.at, chain.live)

    def follow_relocations(self) -> None:
        """After all points: packs that stand in for those that are named are live, in their whole.

        Raises CorruptObject for a relocation record that cannot be read.
        """
        for pack, keys in self._relocated.items():
            at, there = self.packs.find(ids_array(pack))
            if pack not in self._gone and not (there[0] and self.packs.live[at[0]]):
                continue  # no list names it any more
            for key in keys:
                for _offset, moved in read_relocation(self.repository, key):
                    at, there = self.packs.find(ids_array(moved.pack))
                    self.packs.live[at[there]] = True
                    self.packs.mark_hidden(ids_array(moved.pack)[~there])

    def _get(self, kind: Kind, hex_id: str, *, again: bool = False) -> bytes:
        if not again:
            self._read.add(hex_id)
        return self.repository.get_page_object(kind, bytes.fromhex(hex_id))

    def _mark(
        self, inventory: Inventory, ids: Ids, label: str, whole: bool
    ) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Which of `ids` are listed, and where."""
        at, there = inventory.find(ids)
        if not there.all():
            missing = ids[~there]
            inventory.mark_hidden(missing)
            if inventory is self.packs and self._relocated:
                relocated = np.array([_raw(i) in self._relocated for i in missing.tolist()], bool)
                self._gone.update(map(_raw, missing[relocated].tolist()))
                missing = missing[~relocated]
            if whole and len(missing):
                self._explain(inventory, missing, label)
        at = at[there]
        inventory.live[at] = True
        return there, at

    def _explain(self, inventory: Inventory, missing: Ids, label: str) -> None:
        """An object that a point needs is not in the listing: the listing was short, or the object is gone."""
        digits = missing[0].ljust(ID_SIZE, b"\0").hex()
        key = f"{inventory.prefix}{digits[:2]}/{digits}"
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        if self.repository.store.head(key) is not None:
            raise StoreError(
                f"the listing of {inventory.prefix} left out {key}{more}, which is there and which {label} needs",
                remedy="nothing was deleted; run it again, and if it stays so ask who runs the store: "
                "a store whose listings are not whole cannot be collected",
            )
        if inventory.hidden is not None and inventory.hidden.find(missing)[1].any():
            raise CorruptObject(
                f"{key}{more} was deleted, and {label} needs it; its older versions are still there",
                remedy="nothing was deleted. `failback repair` puts back what fits; look for who deleted it",
            )
        raise CorruptObject(
            f"{key}{more} is missing from the repository, and {label} needs it",
            remedy="nothing was deleted. Look for a life-cycle rule of the bucket that expires objects; "
            f"`failback verify {label}` says what is damaged. Repair it from a copy, or give the point up with "
            "`failback forget`",
        )


def _raw(object_id: bytes) -> bytes:
    """An element of an array of ids in its whole length."""
    return object_id.ljust(ID_SIZE, b"\0")
