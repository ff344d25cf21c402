"""Compaction without a rewriter: what a background incremental sends again, so that mostly dead packs die whole.

After many incrementals most of what a pack holds is dead, and a restore, which reads through the gaps, fetches several
times what it needs. Packs of which little is live are emptied, the emptiest first, for half of what the export sends
anyway. With changes spread evenly over a disk a restore then fetches about 1.6 times what it needs, however many
incrementals there were (3.3 times without), and 1.4 to 1.5 times as much is sent; the exact figures follow from the two
numbers below. Nothing here takes time in proportion to the disk unless the export compares every block anyway: a pack's
own table names the positions of its chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.entry import FLAG_UNREADABLE, ID_SIZE, Positions, Rows, ids_of, is_zero
from manifests.tree import LEAF_POSITIONS
from pipeline.errors import AccessDenied, FormatError
from pipeline.repository import Repository
from pipeline.transfer.index_file import IndexFile
from pipeline.transfer.index_writer import OverlayIndex
from pipeline.transfer.pack_tables import pack_table
from pipeline.transfer.pack_uses import FOREIGN, LEFTOVER, PackUses
from pipeline.transfer.scan import Scanned, Scanner, Work

SPARSE = 0.4
"""A pack of whose stored bytes no more than this share is live is worth emptying."""
BUDGET = 0.5
"""Bytes sent again for each byte that an export sends of changed chunks."""
WORTH = 64 << 10
"""Less than this is not worth a request: neither dead bytes of a pack, nor what an export may send again."""
MOST_CHUNKS = 1 << 18
"""Chunks sent again by one export at most: their positions and entries are held in memory (15 MiB)."""
_FEW_TABLES, _TABLE_EVERY, _MOST_TABLES = 16, 4 << 20, 4096
"""Tables asked for by one export at most: some, and one more for so many bytes sent (two for a pack); but no more."""
_SWEPT_LEAVES = 16
"""Leaves searched for references by an export that does not go through the whole disk: 3 MiB of the local copy."""


@dataclass(slots=True)
class Compaction:
    """For one disk's export, when its changes are sent and in `index`. `uses` are the parent's."""

    repository: Repository
    lineage: bytes
    index: OverlayIndex
    uses: PackUses

    @property
    def copy(self) -> IndexFile:
        return self.index.copy

    def choose(self, sent: int, *, whole: bool, pool: ThreadPoolExecutor) -> Positions:
        """Positions to be sent again by an export that sent `sent` stored bytes, ascending.

        `whole`: the export goes through the whole disk, so searching the whole local copy is in proportion. Raises
        StaleCopy; a pack that can't be asked for its table stays as it is.
        """
        nothing = np.zeros(0, "<u8")
        budget = int(BUDGET * sent)
        ranked, live = self.uses.sparse(self.index.live, SPARSE, dead=WORTH)
        left = self.uses.marked(ranked, LEFTOVER)
        most = min(_FEW_TABLES + sent // _TABLE_EVERY, _MOST_TABLES)
        fresh = ~left & (np.cumsum(np.where(left, 0, live)) - live < budget) & (np.cumsum(~left) <= most)
        wanted = fresh | left
        if budget < WORTH or not wanted.any():
            return nothing
        found = [nothing]
        for number, table in zip(ranked[fresh].tolist(), pool.map(self._table, ranked[fresh].tolist()), strict=True):
            lineage, named = table
            if lineage != self.lineage or sum(map(len, found)) > MOST_CHUNKS:
                wanted[ranked == number] = False
            if lineage not in (self.lineage, b""):
                self.uses.mark(number, FOREIGN)
            found.append(named)
        ranks = np.full(len(self.copy.packs), -1, np.int64)
        ranks[ranked[wanted]] = np.flatnonzero(wanted)
        if whole or left.any():
            found += self._sweep(ranks, whole=whole)
        positions = np.unique(np.concatenate(found))
        rows = self.copy.lookup(positions)
        keep = (ranks[rows["pack"]] >= 0) & ~is_zero(rows) & (rows["flags"] & FLAG_UNREADABLE == 0)
        positions, rows = positions[keep], rows[keep]
        keep = self.index.untouched(positions)
        positions, rows = positions[keep], rows[keep]
        chosen: Positions = positions[self._within(budget, rows, ranks, ranked, live)]
        return chosen

    def _within(
        self, budget: int, rows: Rows, ranks: NDArray[np.int64], numbers: NDArray[np.intp], live: NDArray[np.int64]
    ) -> NDArray[np.intp]:
        """Which rows fit the budget, those of the emptiest packs first. Packs that stay alive all the same are marked:
        other positions than their tables name refer to them."""
        rank = ranks[rows["pack"]]
        order = np.argsort(rank, kind="stable")
        lengths = rows["length"].astype(np.int64)
        chosen = order[: min(int(np.searchsorted(np.cumsum(lengths[order]), budget, side="right")), MOST_CHUNKS)]
        moved = np.bincount(rank[chosen], lengths[chosen], len(numbers))
        found = np.bincount(rank, lengths, len(numbers))
        asked = np.zeros(len(numbers), bool)
        asked[ranks[ranks >= 0]] = True
        for at in np.flatnonzero(asked & (moved == found) & (found < live)).tolist():
            self.uses.mark(int(numbers[at]), LEFTOVER)
        return np.sort(chosen)

    def _table(self, number: int) -> tuple[bytes, Positions]:
        """Lineage of a pack's disk and the positions that its table names. The lineage is empty when they cannot be
        had: an export must not fail for what it can do without."""
        try:
            table = pack_table(self.repository, self.copy.packs.ids[number], self.uses.stored(number))
        except (FormatError, AccessDenied):
            return b"", np.zeros(0, "<u8")
        return table.lineage, table.positions[table.positions < self.copy.positions]

    def _sweep(self, ranks: NDArray[np.int64], *, whole: bool) -> Iterator[Positions]:
        """Positions whose entries (unproved) refer to a pack with a rank: of the whole disk, or of its next part."""
        leaves = -(-self.copy.positions // LEAF_POSITIONS)
        found = step = 0
        while step < (leaves if whole else min(_SWEPT_LEAVES, leaves)) and found <= MOST_CHUNKS:
            leaf = (self.uses.cursor + step) % leaves
            step += 1
            if self.copy.is_zero_leaf(leaf):
                continue
            first = leaf * LEAF_POSITIONS
            rows = self.copy.rows(first, self.copy.leaf_size(leaf))
            packs = np.minimum(rows["pack"], len(ranks) - 1)
            hits = np.flatnonzero((ranks[packs] >= 0) & ~is_zero(rows))
            found += len(hits)
            yield (hits + first).astype("<u8")
        self.uses.cursor = (self.uses.cursor + step) % leaves


@dataclass(frozen=True, slots=True)
class Again:
    """Reads chunks to be sent again, with a scanner that knows no parent; only what is the parent's chunk is given.

    Whatever else is read stays as it was judged already, by the scan or by the source's change map, and is counted.
    """

    scanner: Scanner
    copy: IndexFile

    def __call__(self, work: Work) -> Scanned:
        scanned = self.scanner(work)
        ids = ids_of(self.copy.lookup(np.array([f.position for f in scanned.found], "<u8")))
        kept = [
            found
            for i, found in enumerate(scanned.found)
            if found.id == ids[i * ID_SIZE : (i + 1) * ID_SIZE] and not found.flags & FLAG_UNREADABLE
        ]
        missed = 0 if scanned.unreadable else work.chunks - len(kept)
        return Scanned(kept, read=scanned.read, missed=missed)
