"""What a listing found of one kind of object named by id, in arrays: 53 bytes an object."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.entry import ID_SIZE
from pipeline.collect.history import histories
from pipeline.errors import StoreError
from pipeline.store.base import ObjectInfo, Store, Versions

Ids: TypeAlias = NDArray[np.bytes_]
"""Ids of objects, 32 bytes each. (Zero bytes at the end of an element do not count in numpy: with one length for all
that changes neither order nor equality.)"""

ID = f"S{ID_SIZE}"
_MOST = (1 << 32) - 1
"""Bytes of a hidden object, at most: an array holds no more."""


class Inventory:
    """Objects below `prefix` ("packs/" or "pages/"), in order of their ids."""

    def __init__(self, prefix: str, ids: Ids, sizes: NDArray[np.uint32], made: NDArray[np.int64]) -> None:
        self.prefix = prefix
        self.ids = ids
        self.sizes = sizes
        self.made = made
        """Seconds since 1970 by the store's clock, rounded down."""
        self.live = np.zeros(len(ids), bool)
        self.foreign = 0
        """Objects that are none of failback: never touched."""
        self.hidden: Inventory | None = None
        """In a bucket that keeps versions: objects that a deletion hides, with the bytes of all their versions, and
        when they were deleted."""
        self.others: NDArray[np.int64] | None = None
        """There: bytes of the versions of each object besides the newest."""

    @classmethod
    def read(cls, store: Store, prefix: str) -> Inventory:
        """Raises whatever the listing raises, and StoreError when it is not in order: then something may be missing."""
        return _Gathered(prefix).take(store.list(prefix)).inventory(store.name)

    @classmethod
    def read_versions(cls, versions: Versions, prefix: str, name: str) -> Inventory:
        """As `read` of the store of that `name`, with what is hidden, by one walk of all versions."""
        seen, hidden, others = _Gathered(prefix), _Gathered(prefix), array("q")
        for history in histories(versions, prefix):
            if not history.hidden:
                if seen.add(history.info):
                    others.append(history.others)
            else:
                hidden.add(replace(history.info, size=min(history.others, _MOST)))
        found = seen.inventory(name)
        found.hidden = hidden.inventory(name)
        found.others = np.frombuffer(others, "i8") if others else np.zeros(0, "i8")
        return found

    def find(self, ids: Ids) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """(where each is, whether it is there at all)."""
        if not len(self.ids):
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), bool)
        where = np.searchsorted(self.ids, ids)
        where[where == len(self.ids)] = 0
        return where, self.ids[where] == ids

    def keys(self, which: NDArray[np.bool_]) -> Iterator[str]:
        for at in np.flatnonzero(which).tolist():
            digits = self.ids[at].ljust(ID_SIZE, b"\0").hex()
            yield f"{self.prefix}{digits[:2]}/{digits}"

    def bytes_of(self, which: NDArray[np.bool_]) -> int:
        return int(self.sizes[which].sum(dtype=np.uint64))

    def mark_hidden(self, ids: Ids) -> None:
        """Those of `ids` that are hidden are needed."""
        if self.hidden is not None:
            at, there = self.hidden.find(ids)
            self.hidden.live[at[there]] = True


class _Gathered:
    """What a listing says, on its way into arrays."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._ids, self._sizes, self._made = bytearray(), array("L"), array("q")
        self._foreign = 0

    def take(self, infos: Iterable[ObjectInfo]) -> _Gathered:
        for info in infos:
            self.add(info)
        return self

    def add(self, info: ObjectInfo) -> bool:
        """Whether it is an object of failback."""
        digits = info.key[len(self._prefix) + 3 :]
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            raw = b""
        if len(raw) != ID_SIZE or info.key != f"{self._prefix}{digits[:2]}/{raw.hex()}":
            self._foreign += 1
            return False
        self._ids += raw
        self._sizes.append(info.size)
        self._made.append(int(info.modified.timestamp()))
        return True

    def inventory(self, name: str) -> Inventory:
        found = Inventory(
            self._prefix,
            np.frombuffer(bytes(self._ids), ID),
            np.frombuffer(self._sizes, "u8").astype("u4") if self._sizes else np.zeros(0, "u4"),
            np.frombuffer(self._made, "i8") if self._made else np.zeros(0, "i8"),
        )
        found.foreign = self._foreign
        if len(found.ids) > 1 and not (found.ids[:-1] < found.ids[1:]).all():
            raise StoreError(
                f"{name} lists {self._prefix} out of order, so the listing may not be whole",
                remedy="nothing is deleted by such a listing; failback needs a store that lists in key order",
            )
        return found


def ids_array(raw: bytes) -> Ids:
    """Ids that stand side by side."""
    return np.frombuffer(raw, ID)
