"""Writing a disk's index: whole, as pages; or as one more overlay tier on a parent's (FORMAT.md, sections 5 to 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from manifests.entry import Positions, Rows, is_zero, same_entries
from manifests.envelope import Kind
from manifests.manifest import TIER_SEGMENTS, Disk, Index, Segment, Tier
from manifests.packlist import PackUse, add_up
from manifests.page import SEGMENT_ENTRIES, encode_segment
from manifests.segment_table import encode_segment_table
from pipeline.repository import Repository
from pipeline.transfer.index_file import IndexFile, TreeUpdate
from pipeline.transfer.index_reader import Block, IndexReader, merge
from pipeline.transfer.pack_lists import PackLists, Put, put_lists, read_lists
from pipeline.transfer.page_writer import PageWriter
from pipeline.transfer.spool import Spool

MAX_TIERS = 4
TIER_RATIO = 4
REWRITE_SHARE = 0.5
MAX_PACK_CHANGES = 15


class IndexWriter(Protocol):
    """Takes the entries of a disk in ascending order of position, then writes what a manifest needs."""

    def add(self, positions: Positions, rows: Rows) -> None:
        """Entries whose packs are stored and have their ids."""

    def finish(self) -> tuple[Index, str]:
        """(index, digest), everything stored."""

    def pack_lists(self, stored: Mapping[int, int]) -> PackLists:
        """Ids of the pack lists, everything stored; `stored` has the lengths of all packs that the parent does not
        name: new ones, and those of earlier attempts and of bases."""

    def keep(self) -> None:
        """The manifest is committed: bring the local copy up to it."""

    live: dict[int, int]
    """Live bytes by number of the pack: all of a new index, or what changed of the parent's."""
    live_bytes: int
    data_chunks: int


class FullIndex:
    """A new index. `copy` is an empty local copy that is filled on the way."""

    def __init__(self, copy: IndexFile, put: Put, *, size: int, chunk_size: int) -> None:
        self.copy = copy
        self.live_bytes = 0
        self.data_chunks = 0
        self._put = put
        self._size, self._chunk_size = size, chunk_size
        self._pages = PageWriter(copy.positions, copy.packs, put)
        self.live: dict[int, int] = {}

    def add(self, positions: Positions, rows: Rows) -> None:
        for first, page in self._pages.add(positions, rows):
            self.copy.store(first, page)
        self._account(rows)

    def _account(self, rows: Rows) -> None:
        stored = ~is_zero(rows)
        self.data_chunks += int(stored.sum())
        count_live(self.live, rows[stored], 1)

    def finish(self) -> tuple[Index, str]:
        for first, page in self._pages.flush():
            self.copy.store(first, page)
        index = Index(pages=self._pages.finish())
        return index, self.copy.digest(size=self._size, chunk_size=self._chunk_size)

    def pack_lists(self, stored: Mapping[int, int]) -> PackLists:
        self.live_bytes = sum(self.live.values())
        ids = self.copy.packs.ids
        base = put_lists(self._put, {ids[o]: PackUse(stored[o], live) for o, live in self.live.items()})
        return PackLists(base, len(base))

    def keep(self) -> None:
        """The copy is complete already."""


class OverlayIndex:
    """A parent's index plus one tier of changes. `copy` is the parent's local copy."""

    def __init__(
        self, repository: Repository, parent: Disk, copy: IndexFile, put: Put, spool: Path, *, final: bool
    ) -> None:
        self.copy = copy
        self.live_bytes = 0
        self.data_chunks = 0
        self._repository = repository
        self._parent = parent
        self._put = put
        self._final = final
        self._tree = TreeUpdate(copy)
        self._spool = Spool(spool)
        self._moved = Spool(spool.with_suffix(".moved"))
        self.live: dict[int, int] = {}
        self._exact: dict[int, int] | None = None

    def add(self, positions: Positions, rows: Rows) -> None:
        old = self._tree.change(positions, rows)
        changed = ~same_entries(old, rows)
        if not changed.any():
            return
        old, rows, positions = old[changed], rows[changed], positions[changed]
        self._spool.write(positions, rows)
        before, after = ~is_zero(old), ~is_zero(rows)
        self.data_chunks += int(after.sum()) - int(before.sum())
        count_live(self.live, old[before], -1)
        count_live(self.live, rows[after], 1)

    def move(self, positions: Positions, rows: Rows) -> None:
        """Chunks that the parent has too and that are stored at another place now; ascending, none that was added."""
        self._moved.write(positions, rows)
        count_live(self.live, self.copy.lookup(positions), -1)
        count_live(self.live, rows, 1)

    def untouched(self, positions: Positions) -> NDArray[np.bool_]:
        """Which of ascending `positions` have their parent's entry so far."""
        same = np.ones(len(positions), bool)
        for changed, _rows in self._spool.blocks() if len(positions) else ():
            at = np.searchsorted(positions, changed)
            at[at == len(positions)] = 0
            same[at[positions[at] == changed]] = False
        return same

    def _entries(self) -> Iterator[Block]:
        return merge([self._spool.blocks(), self._moved.blocks()])

    def finish(self) -> tuple[Index, str]:
        digest = self._tree.digest(size=self._parent.size, chunk_size=self._parent.chunk_size)
        old = self._parent.index
        changed = self._spool.count + self._moved.count
        if not changed:
            return old, digest
        chunks = self._parent.data_bytes // self._parent.chunk_size + self.data_chunks
        overlaid = changed + sum(t.count for t in old.tiers)
        if not self._final and overlaid > REWRITE_SHARE * chunks and overlaid > SEGMENT_ENTRIES // 4:
            return Index(pages=self._write_pages()), digest
        count = tiers_to_merge([t.count for t in old.tiers], changed, final=self._final)
        stream: Iterable[Block] = self._entries()
        if count:
            reader = IndexReader(self._repository, self._parent, self.copy.packs)
            stream = merge([stream, reader.blocks(old.tiers[:count])])
        tier = self._write_tier(stream)
        return Index(pages=old.pages, tiers=(tier, *old.tiers[count:])), digest

    def _write_tier(self, stream: Iterable[Block]) -> Tier:
        segments = tuple(self._write_segments(stream))
        if len(segments) <= TIER_SEGMENTS:
            return Tier(segments=segments)
        table = self._put(Kind.SEGMENT_TABLE, encode_segment_table(segments)).result()[0]
        return Tier(table=table.hex(), count=sum(s.count for s in segments))

    def _write_segments(self, stream: Iterable[Block]) -> Iterator[Segment]:
        written = [
            (int(p[0]), int(p[-1]), len(p), self._put(Kind.SEGMENT, encode_segment(p, r, self.copy.packs)))
            for p, r in _rebatch(stream, SEGMENT_ENTRIES)
        ]
        for first, last, count, future in written:
            yield Segment(id=future.result()[0].hex(), first=first, last=last, count=count)

    def _write_pages(self) -> str:
        """The whole index anew, from the parent's in the repository: the local copy's places are not proved."""
        reader = IndexReader(self._repository, self._parent, self.copy.packs)
        pages = PageWriter(self.copy.positions, self.copy.packs, self._put)
        self._exact = {}
        for positions, rows in merge([self._entries(), reader.windows()]):
            count_live(self._exact, rows[~is_zero(rows)], 1)
            for _ in pages.add(positions, rows):
                pass
        for _ in pages.flush():
            pass
        return pages.finish()

    def pack_lists(self, stored: Mapping[int, int]) -> PackLists:
        ids = self.copy.packs.ids
        old = PackLists(self._parent.packs, self._parent.base_lists)
        self.live_bytes = max(self._parent.live_bytes + sum(self.live.values()), 0)
        change = {ids[o]: PackUse(stored.get(o, 0), live) for o, live in self.live.items() if live or o in stored}
        if self._exact is not None:
            known = add_up([*read_lists(self._repository, old.ids), change])
            self.live_bytes = sum(self._exact.values())
            exact = {ids[o]: PackUse(known[ids[o]].stored, live) for o, live in self._exact.items()}
            base = put_lists(self._put, exact)
            return PackLists(base, len(base))
        if not change:
            return old
        base, changes = old.ids[: old.base], old.ids[old.base :]
        if not base:
            # A parent without any list cannot have a change of it.
            base = put_lists(self._put, change)
            return PackLists(base, len(base))
        if len(changes) >= MAX_PACK_CHANGES and not self._final:
            merged = add_up([*read_lists(self._repository, changes), change])
            # What adds up to nothing is said by the base, or nothing refers to it any more.
            change, changes = {pack: use for pack, use in merged.items() if use.live}, ()
        return PackLists((*base, *changes, *put_lists(self._put, change)), len(base))

    def keep(self) -> None:
        self.copy.invalidate()
        for positions, rows in self._entries():
            self.copy.apply(positions, rows)


def tiers_to_merge(counts: list[int], new: int, *, final: bool) -> int:
    """How many of the old tiers (newest first) a new one of `new` entries is merged with.

    A final export merges only when there would be a fifth tier. Background exports keep each older tier at least
    TIER_RATIO times the newer one, and leave room for a final one.
    """
    if final:
        return 1 if len(counts) >= MAX_TIERS else 0
    merged, count = new, 0
    while count < len(counts) and (counts[count] < TIER_RATIO * merged or len(counts) - count >= MAX_TIERS - 1):
        merged += counts[count]
        count += 1
    return count


def count_live(live: dict[int, int], rows: Rows, sign: int) -> None:
    """Add (or take away) the stored bytes of `rows` to their packs."""
    if not len(rows):
        return
    ordinals, inverse = np.unique(rows["pack"], return_inverse=True)
    sums = np.bincount(inverse, rows["length"])
    for ordinal, length in zip(ordinals.tolist(), sums.tolist(), strict=True):
        live[ordinal] = live.get(ordinal, 0) + sign * int(length)


def _rebatch(stream: Iterable[Block], size: int) -> Iterator[Block]:
    """The same stream in blocks of exactly `size` entries, but the last."""
    waiting: list[Block] = []
    count = 0
    for positions, rows in stream:
        waiting.append((positions, rows))
        count += len(positions)
        while count >= size:
            p, r = np.concatenate([w[0] for w in waiting]), np.concatenate([w[1] for w in waiting])
            yield p[:size], r[:size]
            waiting, count = [(p[size:], r[size:])], count - size
    if count:
        yield np.concatenate([w[0] for w in waiting]), np.concatenate([w[1] for w in waiting])
