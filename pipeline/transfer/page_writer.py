"""Writing an index as pages (FORMAT.md, sections 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise

import numpy as np

from manifests.directory import PageDirectory
from manifests.entry import PackTable, Positions, Rows, empty_rows, is_zero
from manifests.envelope import Kind
from manifests.page import PAGE_POSITIONS, encode_page
from pipeline.transfer.pack_lists import Put


class PageWriter:
    """Gathers entries into pages and stores each when it is complete."""

    def __init__(self, positions: int, packs: PackTable, put: Put) -> None:
        self._directory = PageDirectory(positions)
        self._packs = packs
        self._put = put
        self._number = -1
        self._rows = empty_rows(0)
        self._stored: list[tuple[int, Future[tuple[bytes, int]]]] = []

    def add(self, positions: Positions, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Take the next entries; yields (first position, entries) of each page that is complete."""
        numbers = positions // PAGE_POSITIONS
        bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(positions)]
        for start, end in pairwise(bounds):
            if start == end:
                continue
            number = int(numbers[start])
            if number != self._number:
                yield from self.flush()
                self._number, self._rows = number, empty_rows(self._directory.size_of(number))
            self._rows[(positions[start:end] - number * PAGE_POSITIONS).astype(np.intp)] = rows[start:end]

    def flush(self) -> Iterator[tuple[int, Rows]]:
        """Complete the page at hand."""
        if self._number >= 0 and not (is_zero(self._rows) & (self._rows["flags"] == 0)).all():
            first = self._number * PAGE_POSITIONS
            self._stored.append((self._number, self._put(Kind.PAGE, encode_page(first, self._rows, self._packs))))
            yield first, self._rows
        self._number = -1

    def finish(self) -> str:
        """Id of the page directory; waits for all pages."""
        for number, future in self._stored:
            self._directory[number] = future.result()[0]
        return self._put(Kind.PAGE_DIRECTORY, self._directory.encode()).result()[0].hex()
