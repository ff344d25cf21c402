"""The index of the served disk, read when it is asked for: a large disk is served before its index is there."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from manifests.entry import PackTable, Positions, Rows
from manifests.manifest import Disk
from manifests.page import PAGE_POSITIONS
from pipeline.repository import Repository
from pipeline.transfer.index_reader import IndexReader

KEPT = 64
"""Pages in memory, 192 KiB each: the index of 16 GiB at 64 KiB a chunk."""


class LazyIndex:
    """Pages of entries, overlays included; the least recently used ones are given up. Safe for many threads."""

    def __init__(self, repository: Repository, disk: Disk, *, kept: int = KEPT) -> None:
        self.packs = PackTable()
        self._reader = IndexReader(repository, disk, self.packs)
        self._positions = disk.positions
        self._kept = kept
        self._pages: OrderedDict[int, Rows] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def page(self, number: int) -> Rows:
        """Entries of the positions from number * 4,096. Raises CorruptObject, StoreError."""
        if (found := self.known(number)) is not None:
            return found
        with self._reading:  # packs are numbered by one thread at a time
            if (found := self.known(number)) is not None:
                return found
            first = number * PAGE_POSITIONS
            end = min(first + PAGE_POSITIONS, self._positions)
            rows = self._reader.lookup(np.arange(first, end, dtype="<u8"))
        with self._lock:
            self._pages[number] = rows
            while len(self._pages) > self._kept:
                self._pages.popitem(last=False)
        return rows

    def known(self, number: int) -> Rows | None:
        """The page, if it need not be read."""
        with self._lock:
            rows = self._pages.get(number)
            if rows is not None:
                self._pages.move_to_end(number)
            return rows

    def rows(self, positions: Positions) -> Rows:
        """Entries of ascending positions."""
        parts = []
        numbers = positions // PAGE_POSITIONS
        for number in np.unique(numbers).tolist():
            at = positions[numbers == number] - np.uint64(number * PAGE_POSITIONS)
            parts.append(self.page(number)[at.astype(np.intp)])
        return np.concatenate(parts) if len(parts) != 1 else parts[0]
