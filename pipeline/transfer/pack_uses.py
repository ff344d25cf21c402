"""How much of each pack a disk uses, by the numbers of the local copy of its index.

Kept in a file beside that copy: a check, and for each pack its live bytes (8, signed), its stored length (4) and marks
(4). It is the sum of the disk's pack lists, and is made from them when it is lost or of another point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from manifests.entry import PackTable
from manifests.packlist import PackUse
from pipeline.transfer.index_file import Head

FOREIGN = 1
"""A pack of another disk, shared through a base: it does not die with this disk's references."""
LEFTOVER = 2
"""What its table of contents names was sent again; positions that refer to it otherwise have to be searched for."""

_USE = np.dtype([("live", "<i8"), ("stored", "<u4"), ("marks", "<u4")])
_CHECK = 32
_FILE = "uses"


class PackUses:
    """Changed by one thread; nothing is on disk before `save`."""

    def __init__(self, uses: NDArray[np.void] | None = None, cursor: int = 0) -> None:
        self._uses = np.zeros(0, _USE) if uses is None else uses
        self.cursor = cursor
        """Where the next search for references begins: a leaf of the disk."""

    @classmethod
    def of(cls, listed: Mapping[bytes, PackUse], packs: PackTable) -> PackUses:
        """From a disk's pack lists."""
        numbers = {packs.ordinal(pack): use for pack, use in listed.items()}
        uses = cls()
        uses.add({n: use.live for n, use in numbers.items()}, {n: use.stored for n, use in numbers.items()})
        return uses

    @classmethod
    def load(cls, folder: Path, head: Head) -> PackUses | None:
        """What was saved for the copy with this head, or None."""
        try:
            data = (folder / _FILE).read_bytes()
        except OSError:
            return None
        check, body = data[:_CHECK], data[_CHECK:]
        if check != _check_of(head, body) or len(body) % _USE.itemsize != 8:
            return None
        return cls(np.frombuffer(body, _USE, offset=8).copy(), int.from_bytes(body[:8], "little"))

    def save(self, folder: Path, head: Head) -> None:
        body = self.cursor.to_bytes(8, "little") + self._uses.tobytes()
        (folder / _FILE).write_bytes(_check_of(head, body) + body)

    def add(self, live: Mapping[int, int], stored: Mapping[int, int]) -> None:
        """Add live bytes (less than zero: take away); take the lengths of packs that are not known yet."""
        longest = max(live, default=-1) + 1
        if longest > len(self._uses):
            self._uses = np.concatenate([self._uses, np.zeros(longest - len(self._uses), _USE)])
        for number, more in live.items():
            use = self._uses[number]
            use["live"] += more
            if not use["stored"]:
                use["stored"] = stored.get(number, 0)

    def mark(self, number: int, mark: int) -> None:
        self._uses[number]["marks"] |= mark

    def marked(self, numbers: NDArray[np.intp], mark: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self._uses["marks"][numbers] & mark) != 0
        return found

    def stored(self, number: int) -> int:
        return int(self._uses[number]["stored"])

    def sparse(
        self, changes: Mapping[int, int], share: float, *, dead: int
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Own packs of which, after `changes` of live bytes, something is live, at most `share`, and `dead` bytes or
        more are not: the emptiest first.

        Gives (numbers, live bytes).
        """
        uses = self._uses
        live = uses["live"].copy()
        for number, more in changes.items():
            if number < len(live):
                live[number] += more
        few = (live > 0) & (live <= share * uses["stored"]) & (live + dead <= uses["stored"])
        found = np.flatnonzero(few & (uses["marks"] & FOREIGN == 0))
        order = np.argsort(live[found] / uses["stored"][found], kind="stable")
        return found[order], live[found[order]]


def _check_of(head: Head, body: bytes) -> bytes:
    return blake3(json.dumps(asdict(head)).encode() + body).digest()
