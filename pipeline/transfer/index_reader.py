"""Reading a disk's index: pages and overlay tiers, merged while streaming."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from manifests.directory import PageDirectory
from manifests.entry import ENTRY, PackTable, Positions, Rows, empty_rows, is_zero, same_entries, same_ids
from manifests.envelope import Kind
from manifests.manifest import Disk, Segment, Tier
from manifests.names import page_key
from manifests.page import PAGE_POSITIONS, decode_page, decode_segment
from manifests.segment_table import decode_segment_table
from pipeline.errors import CorruptObject
from pipeline.repository import Repository

Block = tuple[Positions, Rows]
"""Ascending positions and their entries."""

WINDOW_ENTRIES = 1 << 18
"""Stored chunks in one window of `IndexReader.windows`: 12 MiB of entries."""
_PREFETCH = 4


class IndexReader:
    """The index of one disk of a manifest. `packs` numbers the packs of all entries it returns."""

    def __init__(self, repository: Repository, disk: Disk, packs: PackTable | None = None) -> None:
        self.repository = repository
        self.disk = disk
        self.packs = PackTable() if packs is None else packs
        self._tables: dict[str, tuple[Segment, ...]] = {}
        self._directory: PageDirectory | None = None
        self._reading = threading.Lock()

    @property
    def directory(self) -> PageDirectory:
        """Read when it is first asked for."""
        # Not a cached_property: up to Python 3.11 all readers of a process wait for one lock while one of them reads.
        with self._reading:
            if self._directory is None:
                self._directory = self._read_directory()
            return self._directory

    def _read_directory(self) -> PageDirectory:
        page_id = bytes.fromhex(self.disk.index.pages)
        name = page_key(page_id)
        found = PageDirectory.decode(self.repository.get_page_object(Kind.PAGE_DIRECTORY, page_id), name=name)
        if found.positions != self.disk.positions:
            raise CorruptObject(f"{name} covers {found.positions} chunks; the disk has {self.disk.positions}")
        return found

    def page(self, number: int) -> Rows:
        """Entries of one page, without overlays."""
        return self._decode_page(number, self._fetch_page(number))

    def _fetch_page(self, number: int) -> bytes | None:
        page_id = self.directory[number]
        return self.repository.get_page_object(Kind.PAGE, page_id) if any(page_id) else None

    def _decode_page(self, number: int, plain: bytes | None) -> Rows:
        count = self.directory.size_of(number)
        if plain is None:
            return empty_rows(count)
        name = page_key(self.directory[number])
        return decode_page(plain, self.packs, first=number * PAGE_POSITIONS, count=count, name=name)

    def objects(self) -> Iterator[bytes]:
        """Ids of the stored objects of the index: directory, pages, segments; and the pack lists."""
        yield bytes.fromhex(self.disk.index.pages)
        for number in self.directory.stored():
            yield self.directory[number]
        for tier in self.disk.index.tiers:
            if tier.table is not None:
                yield bytes.fromhex(tier.table)
            for segment in self.segments(tier):
                yield bytes.fromhex(segment.id)
        yield from map(bytes.fromhex, self.disk.packs)

    def segments(self, tier: Tier) -> Sequence[Segment]:
        """The segments of a tier; a segment table is read when it is first asked for."""
        if tier.table is None:
            return tier.segments
        found = self._tables.get(tier.table)
        if found is None:
            table_id = bytes.fromhex(tier.table)
            name = page_key(table_id)
            plain = self.repository.get_page_object(Kind.SEGMENT_TABLE, table_id)
            found = decode_segment_table(plain, name=name)
            if sum(s.count for s in found) != tier.count:
                raise CorruptObject(f"{name} does not hold the entries its manifest says")
            self._tables[tier.table] = found
        return found

    def segment(self, segment: Segment) -> Block:
        """Entries of one overlay segment."""
        segment_id = bytes.fromhex(segment.id)
        plain = self.repository.get_page_object(Kind.SEGMENT, segment_id)
        name = page_key(segment_id)
        positions, rows = decode_segment(plain, self.packs, name=name)
        if (
            len(positions) != segment.count
            or positions[0] != segment.first
            or positions[-1] != segment.last
            or positions[-1] >= self.disk.positions
        ):
            raise CorruptObject(f"{name} does not hold the positions its manifest says")
        return positions, rows

    def blocks(self, tiers: Sequence[Tier]) -> Iterator[Block]:
        """Entries of several tiers (newest first) as one ascending stream; the newest entry of a position wins."""
        return merge([map(self.segment, self.segments(tier)) for tier in tiers])

    def windows(self, *, entries: int = WINDOW_ENTRIES) -> Iterator[Block]:
        """Every chunk of the disk that is not zero, ascending, at most about `entries` (and a page) at a time."""
        overlay = self.blocks(self.disk.index.tiers)
        pending: Block | None = next(overlay, None)
        collected: list[Block] = []
        count = 0
        with ThreadPoolExecutor(_PREFETCH, "index") as pool:
            for number, rows in self._pages(pool):
                first = number * PAGE_POSITIONS
                end = first + len(rows)
                while pending is not None and int(pending[0][0]) < end:
                    cut = int(np.searchsorted(pending[0], end))
                    rows[(pending[0][:cut] - first).astype(np.intp)] = pending[1][:cut]
                    pending = (pending[0][cut:], pending[1][cut:])
                    if not len(pending[0]):
                        pending = next(overlay, None)
                stored = np.flatnonzero(~is_zero(rows))
                if len(stored):
                    collected.append(((stored + first).astype("<u8"), rows[stored]))
                    count += len(stored)
                if count >= entries:
                    yield concatenate(collected)
                    collected, count = [], 0
            if collected:
                yield concatenate(collected)

    def _pages(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, Rows]]:
        """Every page that is stored or overlaid, read ahead; entries without overlays."""
        numbers = self._touched_pages()
        ahead = [pool.submit(self._fetch_page, n) for n in numbers[:_PREFETCH]]
        for i, number in enumerate(numbers):
            plain = ahead.pop(0).result()
            if i + _PREFETCH < len(numbers):
                ahead.append(pool.submit(self._fetch_page, numbers[i + _PREFETCH]))
            # Decoding numbers packs in a shared table, so it stays in one thread.
            yield number, self._decode_page(number, plain)

    def _touched_pages(self) -> list[int]:
        touched = np.zeros(self.directory.count, bool)
        touched[self.directory.stored()] = True
        for tier in self.disk.index.tiers:
            for segment in self.segments(tier):
                touched[segment.first // PAGE_POSITIONS : segment.last // PAGE_POSITIONS + 1] = True
        return [int(n) for n in np.flatnonzero(touched)]

    def lookup(self, positions: Positions) -> Rows:
        """Entries of ascending `positions`, overlays included; reads only the pages and segments they fall into."""
        result = empty_rows(len(positions))
        if not len(positions):
            return result
        numbers = positions // PAGE_POSITIONS
        for number in np.unique(numbers):
            at = np.flatnonzero(numbers == number)
            page = self.page(int(number))
            result[at] = page[(positions[at] - number * PAGE_POSITIONS).astype(np.intp)]
        for tier in reversed(self.disk.index.tiers):
            for segment in self.segments(tier):
                low, high = np.searchsorted(positions, [segment.first, segment.last + 1])
                if low == high:
                    continue
                found, rows = self.segment(segment)
                where = np.searchsorted(found, positions[low:high])
                where[where == len(found)] = 0
                hit = found[where] == positions[low:high]
                result[np.flatnonzero(hit) + low] = rows[where[hit]]
        return result


def concatenate(blocks: Sequence[Block]) -> Block:
    """Ascending blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def merge(streams: Sequence[Iterable[Block]]) -> Iterator[Block]:
    """Several ascending streams (newest first) as one; where a position occurs twice the newest entry wins."""
    iterators = [iter(s) for s in streams]
    heads = [next(i, None) for i in iterators]
    while True:
        live = [i for i, head in enumerate(heads) if head is not None]
        if not live:
            return
        # Heads of `live` are not None.
        cut = min(int(heads[i][0][-1]) for i in live)  # type: ignore[index]
        parts: list[Block] = []
        for i in live:
            positions, rows = heads[i]  # type: ignore[misc]
            at = int(np.searchsorted(positions, cut, side="right"))
            if at:
                parts.append((positions[:at], rows[:at]))
            heads[i] = (positions[at:], rows[at:]) if at < len(positions) else next(iterators[i], None)
        if len(parts) == 1:
            yield parts[0]
        else:
            positions = np.concatenate([p[0] for p in parts])
            unique, index = np.unique(positions, return_index=True)
            yield unique, np.concatenate([p[1] for p in parts])[index]


def differences(old: IndexReader, new: IndexReader, *, moved: bool = False) -> Iterator[Block]:
    """Positions whose chunk differs, or may differ, between two points of one disk, with their entries in `new`.

    Reads only what the two indexes do not share: with a common page directory, the tiers that differ. What these tiers
    say of `new` alone may be a chunk that was only stored at another place: whoever has the entries of `old` compares
    (`changed_only`). With `moved` every entry that differs is given, be it only by its place. Both readers must number
    packs in the same table and have the same chunk size.
    """
    same = same_entries if moved else same_ids
    if old.disk.index.pages == new.disk.index.pages:
        before, after = list(old.disk.index.tiers), list(new.disk.index.tiers)
        while before and after and before[-1] == after[-1]:
            before.pop()
            after.pop()
        yield from _tier_differences(old.blocks(before), new.blocks(after), new, same)
        return
    yield from _full_differences(old.windows(entries=1 << 16), new.windows(entries=1 << 16), same)


_Same = Callable[[Rows, Rows], NDArray[np.bool_]]


def _tier_differences(
    before: Iterator[Block], after: Iterator[Block], new: IndexReader, same: _Same
) -> Iterator[Block]:
    """Streams the union of both positions; what only the old tiers mention is looked up in the new index."""
    for positions, (left, right), (at_left, at_right) in _union(before, after):
        rows = np.empty(len(positions), ENTRY)
        named = np.zeros(len(positions), bool)
        rows[at_right], named[at_right] = right, True
        if not named.all():
            rows[~named] = new.lookup(positions[~named])
        differ = np.ones(len(positions), bool)
        differ[at_left] = ~same(left, rows[at_left])
        if differ.any():
            yield positions[differ], rows[differ]


def _full_differences(before: Iterator[Block], after: Iterator[Block], same: _Same) -> Iterator[Block]:
    """Streams both indexes page by page."""
    for positions, rows, side in _union(before, after):
        left, right = empty_rows(len(positions)), empty_rows(len(positions))
        left[side[0]], right[side[1]] = rows
        differ = ~same(left, right)
        if differ.any():
            yield positions[differ], right[differ]


def _union(
    left: Iterator[Block], right: Iterator[Block]
) -> Iterator[tuple[Positions, tuple[Rows, Rows], tuple[Positions, Positions]]]:
    """Aligned pieces of two ascending streams: union of positions, the rows of each side, and where they belong."""
    nothing: Block = (np.zeros(0, "<u8"), empty_rows(0))
    heads: list[Block | None] = [next(left, None), next(right, None)]
    streams = [left, right]
    while heads[0] is not None or heads[1] is not None:
        cut = min(int(h[0][-1]) for h in heads if h is not None)
        parts: list[Block] = []
        for i in (0, 1):
            head = heads[i]
            if head is None:
                parts.append(nothing)
                continue
            at = int(np.searchsorted(head[0], cut, side="right"))
            parts.append((head[0][:at], head[1][:at]))
            heads[i] = (head[0][at:], head[1][at:]) if at < len(head[0]) else next(streams[i], None)
        union = np.union1d(parts[0][0], parts[1][0])
        where = (np.searchsorted(union, parts[0][0]), np.searchsorted(union, parts[1][0]))
        yield union, (parts[0][1], parts[1][1]), where  # type: ignore[misc]
