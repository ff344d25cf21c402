"""Index entries: where the chunk of one position is (FORMAT.md, section 5)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

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
MAX_STORED_PACK = MAX_PACK + (1 << 20)
"""No pack object is longer than this: its chunks, its table and its footer."""
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


def same_entries(left: Rows, right: Rows) -> NDArray[np.bool_]:
    """Where two equally long entry arrays have the same chunk at the same place."""
    same: NDArray[np.bool_] = same_ids(left, right)
    for column in ("pack", "offset", "flags"):
        same &= left[column] == right[column]
    return same


_FEWEST_PLACES = 64


class PackIds(Sequence[bytes]):
    """Pack ids by number, side by side in one byte string; b"" for a number whose pack has no id yet."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data) // ID_SIZE

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> list[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | list[bytes]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        at = ID_SIZE * (number if number >= 0 else number + len(self))
        found = bytes(self._data[at : at + ID_SIZE]) if at >= 0 else b""
        if not found:
            raise IndexError(f"there is no pack {number}")
        return b"" if found == ZERO_ID else found

    def __iter__(self) -> Iterator[bytes]:
        return (self[i] for i in range(len(self)))


class PackTable:
    """Numbers packs 0, 1, 2, … so that an entry holds four bytes instead of 32.

    About 50 bytes a pack: ids side by side, and a hash table (open addressing, at most half full) of their numbers.
    A disk of 16 TiB has two million packs. Numbers are given out by one thread; any may read `ids`.
    """

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        self.ids = PackIds()
        self._data = self.ids._data
        for pack in ids:
            self._data += pack or ZERO_ID
        self._places = array("I")
        self._used = 0
        self._rebuild()

    def __len__(self) -> int:
        return len(self.ids)

    def reserve(self) -> int:
        """A number for a pack that has no id yet; `settle` gives it one."""
        self._data += ZERO_ID
        return len(self) - 1

    def settle(self, ordinal: int, pack: bytes) -> None:
        self._data[ID_SIZE * ordinal : ID_SIZE * (ordinal + 1)] = pack
        self._enter(self._find(pack), ordinal)

    def ordinal(self, pack: bytes) -> int:
        """The number of `pack`, a new one when it has none."""
        place = self._find(pack)
        found = self._places[place]
        if found:
            return found - 1
        self._data += pack
        ordinal = len(self) - 1
        self._enter(place, ordinal)
        return ordinal

    def _find(self, pack: bytes) -> int:
        """The place that holds the pack's number plus 1, or the empty one (0) where it belongs."""
        places, data = self._places, self._data
        mask = len(places) - 1
        place = int.from_bytes(pack[:8], "little") & mask
        while True:
            at = ID_SIZE * (places[place] - 1)
            if at < 0 or data[at : at + ID_SIZE] == pack:
                return place
            place = (place + 1) & mask

    def _enter(self, place: int, ordinal: int) -> None:
        self._used += not self._places[place]
        self._places[place] = ordinal + 1
        if 2 * self._used > len(self._places):
            self._rebuild()

    def _rebuild(self) -> None:
        """A hash table with room for twice as many packs, filled with all of them at once."""
        size = _FEWEST_PLACES
        while size < 4 * len(self):
            size *= 2
        places = np.zeros(size, "<u4")
        # A view while nobody may lengthen the ids: gone at the end of this method.
        words = np.frombuffer(self._data or ZERO_ID, "<u8").reshape(-1, ID_SIZE // 8)
        waiting = np.flatnonzero(words.any(axis=1))
        self._used = len(waiting)
        numbers = (waiting + 1).astype("<u4")
        at = (words[waiting, 0] & np.uint64(size - 1)).astype(np.intp)
        while len(numbers):
            free = places[at] == 0
            places[at[free]] = numbers[free]
            left = places[at] != numbers
            numbers, at = numbers[left], (at[left] + 1) & (size - 1)
        self._places = array("I", places.astype("I").tobytes())
