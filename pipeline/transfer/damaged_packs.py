"""Packs that scrubs found damaged, as an export sees them: what they hold is sent again, and never shared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from manifests.entry import FLAG_UNREADABLE, PackTable, Positions, Rows, is_zero
from manifests.tree import LEAF_POSITIONS
from pipeline.errors import AccessDenied
from pipeline.mend.damage import damaged_ids
from pipeline.repository import Repository
from pipeline.transfer.index_file import IndexFile
from pipeline.transfer.index_writer import OverlayIndex


class DamagedPacks:
    """By one listing; empty in a whole repository, and then nothing here costs anything."""

    def __init__(self, repository: Repository, tell: Callable[[str], object]) -> None:
        try:
            self.ids = damaged_ids(repository)
        except AccessDenied as error:
            self.ids = set()  # an exporter without this right does all else
            tell(f"what scrubs found damaged is not sent again: {error.message}")

    def holds(self, rows: Rows, packs: PackTable) -> np.ndarray:
        """Which entries lie in a damaged pack."""
        if not self.ids:
            return np.zeros(len(rows), bool)
        found: np.ndarray = np.isin(rows["pack"], self._numbers(packs)) & ~is_zero(rows)
        return found

    def positions(self, index: OverlayIndex) -> Positions:
        """Positions that the parent has in damaged packs and that did not change, ascending. Goes through the whole
        local copy when there is one."""
        found = [np.zeros(0, "<u8")]
        copy: IndexFile = index.copy
        numbers = self._numbers(copy.packs)
        for leaf in copy.nonzero_leaves() if len(numbers) else ():
            first = leaf * LEAF_POSITIONS
            rows = copy.rows(first, copy.leaf_size(leaf))
            hits = np.isin(rows["pack"], numbers) & ~is_zero(rows) & (rows["flags"] & FLAG_UNREADABLE == 0)
            found.append((np.flatnonzero(hits) + first).astype("<u8"))
        positions: Positions = np.concatenate(found)
        return positions[index.untouched(positions)]

    def _numbers(self, packs: PackTable) -> np.ndarray:
        named = enumerate(packs.ids) if self.ids else ()
        return np.array([number for number, pack in named if pack in self.ids], "<u4")
