"""Index entries: where the chunk of one position is (FORMAT.md, section 5)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

ID_SIZE = 32
ZERO_ID = bytes(ID_SIZE)
FLAG_STORED = 1
"""The chunk is stored uncompressed."""
FLAG_UNREADABLE = 2
"""The source could not be read here."""
PACK_SLOTS = 4096
MAX_PACK = 16 << 20
"""No sealed chunk ends behind this offset: what a reader may have to ask for at once."""
KNOWN_FLAGS = FLAG_STORED | FLAG_UNREADABLE

ENTRY = np.dtype(
    [
        ("id", "<u8", (4,)),
        ("pack", "<u4"),
        ("offset", "<u4"),
        ("length", "<u4"),
        ("slot", "<u2"),
        ("flags", "<u2"),
    ]
)
"""One entry in memory, 48 bytes. `pack` is an ordinal of a PackTable."""

Rows = NDArray[np.void]
Positions = NDArray[np.uint64]


def empty_rows(count: int) -> Rows:
    """`count` entries of zero chunks."""
    return np.zeros(count, ENTRY)


def ids_of(rows: Rows) -> bytes:
    """The ids of `rows` side by side."""
    return np.ascontiguousarray(rows["id"]).tobytes()


def is_zero(rows: Rows) -> NDArray[np.bool_]:
    """Which of `rows` are zero chunks."""
    ids = rows["id"]
    zero: NDArray[np.bool_] = (ids[:, 0] | ids[:, 1] | ids[:, 2] | ids[:, 3]) == 0
    return zero


def same_ids(left: Rows, right: Rows) -> NDArray[np.bool_]:
    """Where two equally long entry arrays have the same chunk."""
    same: NDArray[np.bool_] = (left["id"] == right["id"]).all(axis=1)
    return same


class PackTable:
    """Numbers packs 0, 1, 2, … so that an entry holds four bytes instead of 32."""

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        self.ids: list[bytes] = list(ids)
        self._ordinals: dict[bytes, int] = {pack: i for i, pack in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def reserve(self) -> int:
        """A number for a pack that has no id yet; `settle` gives it one."""
        self.ids.append(b"")
        return len(self.ids) - 1

    def settle(self, ordinal: int, pack: bytes) -> None:
        self.ids[ordinal] = pack
        self._ordinals[pack] = ordinal

    def ordinal(self, pack: bytes) -> int:
        """The number of `pack`, a new one when it has none."""
        found = self._ordinals.get(pack)
        if found is None:
            found = self._ordinals[pack] = len(self.ids)
            self.ids.append(pack)
        return found
