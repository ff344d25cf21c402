"""Reading a disk: which chunks to read, and what becomes of each (zero, known, or compressed to be sent)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import zstandard

from manifests.entry import FLAG_STORED, FLAG_UNREADABLE, ID_SIZE, ZERO_ID, Rows, ids_of, is_zero
from manifests.sealing import Buffer
from manifests.tree import LEAF_POSITIONS
from pipeline.errors import Unreadable
from pipeline.exporters.base import Exporter, Extent
from pipeline.transfer.index_file import IndexFile

SEGMENT_BYTES = 4 << 20
"""Read, hashed and compressed by one worker at a time."""
TRUSTED = 1 << 14
"""Local flag of a journaled entry: the source still has the identity it had when it was journaled."""

Run = tuple[int, int]
"""(first position, number of positions)"""

Place = tuple[int, int, int, int, int]
"""(pack, offset, stored length, slot, flags) of a chunk that is stored already"""


@dataclass(slots=True)
class Work:
    """Up to a segment of chunks to read, and positions known to be zero that the parent may hold otherwise."""

    runs: list[Run] = field(default_factory=list)
    zeros: list[Run] = field(default_factory=list)

    @property
    def chunks(self) -> int:
        return sum(count for _, count in self.runs)


@dataclass(slots=True)
class Found:
    """One position that has to be entered in the index: a new chunk with its payload, a reused entry, or zero."""

    position: int
    id: bytes
    payload: bytes | None = None
    flags: int = 0
    reuse: Place | None = None


@dataclass(slots=True)
class Scanned:
    """What became of one Work."""

    found: list[Found] = field(default_factory=list)
    unreadable: list[tuple[int, int]] = field(default_factory=list)
    read: int = 0
    unchanged: int = 0
    missed: int = 0
    """Chunks that were to be sent again, and are not what the parent says."""


def plan(extents: Iterable[Extent], chunk_size: int, positions: int, parent: IndexFile | None) -> Iterator[Work]:
    """Cut a disk into Works, in order. With a parent, what it holds under a hole is named as zeros."""
    per_segment = SEGMENT_BYTES // chunk_size
    work = Work()
    done = 0
    leaves = iter(parent.nonzero_leaves()) if parent else iter(())
    leaf = next(leaves, None)
    for first, end in _data_runs(extents, chunk_size):
        first = max(first, done)
        zeros, leaf = _zero_runs(done, first, leaf, leaves)
        for run in zeros:
            work.zeros.append(run)
            if len(work.zeros) >= 4:
                yield work
                work = Work()
        at = first
        while at < end:
            stop = min(end, (at // per_segment + 1) * per_segment)
            work.runs.append((at, stop - at))
            at = stop
            if work.chunks >= per_segment or len(work.runs) >= per_segment:
                yield work
                work = Work()
        done = max(done, end)
    zeros, leaf = _zero_runs(done, positions, leaf, leaves)
    for run in zeros:
        work.zeros.append(run)
        yield work
        work = Work()
    if work.runs or work.zeros:
        yield work


def plan_changes(changed: Iterable[tuple[int, int]], chunk_size: int, size: int) -> Iterator[Work]:
    """Cut a list of changed (offset, length) into Works."""
    extents = (Extent(offset, min(length, size - offset), False) for offset, length in changed if offset < size)
    return plan(extents, chunk_size, -(-size // chunk_size), None)


def _data_runs(extents: Iterable[Extent], chunk_size: int) -> Iterator[tuple[int, int]]:
    """(first, end) positions with data, merged where extents touch the same or the next chunk."""
    first = end = -1
    for extent in extents:
        if extent.zero or extent.length <= 0:
            continue
        low, high = extent.offset // chunk_size, -(-(extent.offset + extent.length) // chunk_size)
        if low <= end:
            end = max(end, high)
            continue
        if end > first:
            yield first, end
        first, end = low, high
    if end > first:
        yield first, end


def _zero_runs(first: int, end: int, leaf: int | None, leaves: Iterator[int]) -> tuple[list[Run], int | None]:
    """The parts of [first, end) under leaves that are not all zero in the parent."""
    runs: list[Run] = []
    while leaf is not None and leaf * LEAF_POSITIONS < end:
        low, high = max(first, leaf * LEAF_POSITIONS), min(end, (leaf + 1) * LEAF_POSITIONS)
        if low < high:
            runs.append((low, high - low))
        if (leaf + 1) * LEAF_POSITIONS > end:
            break
        leaf = next(leaves, None)
    return runs, leaf


class Scanner:
    """Called by several worker threads at once, each with its own buffer and compressor."""

    def __init__(
        self,
        exporter: Exporter,
        chunk_size: int,
        *,
        parent: IndexFile | None,
        journaled: IndexFile | None,
        bases: list[IndexFile],
        sent: dict[bytes, Place],
        keep_going: bool,
        level: int,
        chunk_id: Callable[[Buffer], bytes],
    ) -> None:
        self.level = level
        """zstd level; may be changed at any time."""
        self._exporter = exporter
        self._chunk_size = chunk_size
        self._parent = parent
        self._journaled = journaled
        self._bases = bases
        self._sent = sent
        self._keep_going = keep_going
        self._chunk_id = chunk_id
        self._zero = bytes(chunk_size)
        self._local = threading.local()

    def without_parent(self) -> Scanner:
        """For chunks that the parent has too: compared with what this export stored only, and never in the way of it:
        what cannot be read is left alone."""
        return Scanner(
            self._exporter,
            self._chunk_size,
            parent=None,
            journaled=self._journaled,
            bases=[],
            sent=self._sent,
            keep_going=True,
            level=self.level,
            chunk_id=self._chunk_id,
        )

    def __call__(self, work: Work) -> Scanned:
        """Read and judge. Raises Unreadable unless told to keep going, SourceChanged, StaleCopy."""
        scanned = Scanned()
        for first, count in work.zeros:
            self._zeros(first, count, scanned)
        for first, count in work.runs:
            self._run(first, count, scanned)
        scanned.found.sort(key=lambda f: f.position)
        return scanned

    def _zeros(self, first: int, count: int, scanned: Scanned) -> None:
        assert self._parent is not None
        rows = self._parent.verified(first, count)
        for i in np.flatnonzero(~is_zero(rows) | (rows["flags"] != 0)).tolist():
            scanned.found.append(Found(first + i, ZERO_ID))

    def _run(self, first: int, count: int, scanned: Scanned) -> None:
        if self._journaled is None:
            self._read_run(first, count, None, scanned)
            return
        rows = self._journaled.rows(first, count)
        # What could not be read is tried again, and its ranges are recorded anew.
        trusted = (rows["flags"] & (TRUSTED | FLAG_UNREADABLE)) == TRUSTED
        bounds = [0, *(np.flatnonzero(np.diff(trusted)) + 1).tolist(), count]
        for start, end in pairwise(bounds):
            if not trusted[start]:
                self._read_run(first + start, end - start, rows[start:end], scanned)
                continue
            for i in range(start, end):
                row = rows[i]
                scanned.found.append(Found(first + i, row["id"].tobytes(), reuse=place_of(row)))

    def _read_run(self, first: int, count: int, journaled: Rows | None, scanned: Scanned) -> None:
        size = self._chunk_size
        buffer, view, compressor = self._tools(count * size)
        bad = self._read(first, count, view, scanned)
        parent, healed = None, set[int]()
        if self._parent is not None:
            rows = self._parent.verified(first, count)
            parent = ids_of(rows)
            healed = set(np.flatnonzero(rows["flags"] & FLAG_UNREADABLE).tolist())
        # A chunk that could not be read, now or for the parent, is entered even when it looks like the parent's.
        earlier = [] if journaled is None else [journaled]
        earlier += [base.rows(first, count) for base in self._bases if first + count <= base.positions]
        found = scanned.found
        sent, chunk_hash = self._sent, self._chunk_id
        for i in range(count):
            at = i * size
            flags = FLAG_UNREADABLE if i in bad else 0
            zero = buffer.startswith(self._zero, at)
            chunk_id = ZERO_ID if zero else chunk_hash(view[at : at + size])
            if (
                parent is not None
                and not flags
                and i not in healed
                and parent[i * ID_SIZE : (i + 1) * ID_SIZE] == chunk_id
            ):
                scanned.unchanged += 1
                continue
            if zero:
                if parent is not None or flags:
                    found.append(Found(first + i, ZERO_ID, flags=flags))
                continue
            reuse = sent.get(chunk_id)
            if reuse is None:
                for rows in earlier:
                    if rows[i]["id"].tobytes() == chunk_id:
                        reuse = place_of(rows[i])
                        break
            if reuse is not None:
                found.append(Found(first + i, chunk_id, reuse=reuse, flags=flags))
                continue
            payload: bytes = compressor.compress(view[at : at + size])
            if len(payload) >= size:
                payload, flags = bytes(view[at : at + size]), flags | FLAG_STORED
            found.append(Found(first + i, chunk_id, payload, flags))

    def _read(self, first: int, count: int, view: memoryview, scanned: Scanned) -> set[int]:
        """Fill `view` with the chunks, zeros behind the disk's end; returns which of them are not wholly readable."""
        size = self._chunk_size
        offset = first * size
        length = min(count * size, self._exporter.size - offset)
        if length < count * size:
            view[length : count * size] = bytes(count * size - length)
        scanned.read += length
        bad: set[int] = set()
        done = 0
        while done < length:
            try:
                self._exporter.read_into(offset + done, view[done:length])
                break
            except Unreadable as error:
                if not self._keep_going:
                    raise
                # Read what precedes the bad range, put zeros in its place, go on behind it.
                start, end = error.offset - offset, min(error.offset + error.length - offset, length)
                if start > done:
                    self._exporter.read_into(offset + done, view[done:start])
                view[start:end] = bytes(end - start)
                scanned.unreadable.append((error.offset, end - start))
                bad.update(range(start // size, -(-end // size)))
                done = end
        return bad

    def _tools(self, length: int) -> tuple[bytearray, memoryview, zstandard.ZstdCompressor]:
        local = self._local
        if not hasattr(local, "buffer") or len(local.buffer) < length:
            local.buffer = bytearray(max(length, SEGMENT_BYTES))
            local.view = memoryview(local.buffer)
            local.compressors = {}
        level = self.level
        if level not in local.compressors:
            local.compressors[level] = zstandard.ZstdCompressor(level=level)
        return local.buffer, local.view, local.compressors[level]


def place_of(row: np.void) -> Place:
    """Where the chunk of an entry is; only the flag that decoding needs is kept."""
    flags = int(row["flags"]) & FLAG_STORED
    return int(row["pack"]), int(row["offset"]), int(row["length"]), int(row["slot"]), flags


def scan_ahead(
    pool: ThreadPoolExecutor, scanner: Callable[[Work], Scanned], works: Iterable[Work], ahead: int
) -> Iterator[tuple[Scanned, int]]:
    """Results in order of `works`, and the position each goes up to; about `ahead` Works before what is taken."""
    waiting: deque[tuple[Future[Scanned], int]] = deque()
    for work in works:
        end = max(first + count for first, count in (*work.runs, *work.zeros))
        waiting.append((pool.submit(scanner, work), end))
        if len(waiting) > ahead + 1:
            future, end = waiting.popleft()
            yield future.result(), end
    while waiting:
        future, end = waiting.popleft()
        yield future.result(), end
