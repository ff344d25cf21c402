"""What a listing found of one kind of object named by id, in arrays: 53 bytes an object."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.entry import ID_SIZE
from pipeline.errors import StoreError
from pipeline.store.base import Store

Ids: TypeAlias = NDArray[np.bytes_]
"""Ids of objects, 32 bytes each. (Zero bytes at the end of an element do not count in numpy: with one length for all
that changes neither order nor equality.)"""

ID = f"S{ID_SIZE}"


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

    @classmethod
    def read(cls, store: Store, prefix: str) -> Inventory:
        """Raises whatever the listing raises, and StoreError when it is not in order: then something may be missing."""
        ids, sizes, made = bytearray(), array("L"), array("q")
        foreign = 0
        for info in store.list(prefix):
            digits = info.key[len(prefix) + 3 :]
            try:
                raw = bytes.fromhex(digits)
            except ValueError:
                raw = b""
            if len(raw) != ID_SIZE or info.key != f"{prefix}{digits[:2]}/{raw.hex()}":
                foreign += 1
                continue
            ids += raw
            sizes.append(info.size)
            made.append(int(info.modified.timestamp()))
        found = cls(
            prefix,
            np.frombuffer(bytes(ids), ID),
            np.frombuffer(sizes, "u8").astype("u4") if sizes else np.zeros(0, "u4"),
            np.frombuffer(made, "i8") if made else np.zeros(0, "i8"),
        )
        found.foreign = foreign
        if len(found.ids) > 1 and not (found.ids[:-1] < found.ids[1:]).all():
            raise StoreError(
                f"{store.name} lists {prefix} out of order, so the listing may not be whole",
                remedy="nothing is deleted by such a listing; failback needs a store that lists in key order",
            )
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


def ids_array(raw: bytes) -> Ids:
    """Ids that stand side by side."""
    return np.frombuffer(raw, ID)
