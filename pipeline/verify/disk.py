"""Check a disk: does it equal a recovery point, and where does it not?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from manifests.entry import ID_SIZE, Positions, Rows, ids_of
from manifests.manifest import Disk
from manifests.ranges import join_ranges
from manifests.sealing import Buffer
from manifests.tree import LEAF_POSITIONS
from pipeline.catalogue import Point
from pipeline.errors import Unreadable
from pipeline.exporters.base import Exporter
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.prove import Hasher, to_ranges
from pipeline.verify.report import VerifyReport

_GAP = 256 * LEAF_POSITIONS
"""Positions without data in the point that are looked at together."""
_NO_ID = b"\xff" * ID_SIZE


def verify_disk(
    repository: Repository,
    point: Point,
    disk: Disk,
    exporter: Exporter,
    *,
    parallel: int = 4,
    watch: Watch = ignore,
) -> VerifyReport:
    """Hash the whole disk and compare with the index. A larger disk equals the point when the rest is zero; a smaller
    one differs where it ends, and any disk where it can't be read."""
    report = VerifyReport(f"{exporter.name} was read and compared with {point.manifest.label} disk {disk.number}")
    if exporter.size < disk.size:
        report.ranges.append((exporter.size, disk.size - exporter.size))
        report.problems.append(f"{exporter.name} has {exporter.size} bytes, the disk of the point {disk.size}")
    counters = Counters(phase="verify", disk=exporter.name, total=exporter.size)
    size = max(disk.size, exporter.size)
    checker = _Checker(exporter, disk, repository.chunk_id)
    bad: list[int] = []
    with ThreadPoolExecutor(parallel, "verify") as pool:
        ahead: deque[tuple[int, Future[list[int]]]] = deque()

        def take() -> None:
            end, future = ahead.popleft()
            bad.extend(future.result())
            counters.done = min(end * disk.chunk_size, counters.total)
            watch(counters)

        def submit(end: int, check: Callable[..., list[int]], *arguments: object) -> None:
            ahead.append((end, pool.submit(check, *arguments)))
            if len(ahead) > 2 * parallel:
                take()

        def submit_gap(first: int, end: int) -> None:
            for low in range(first, min(end, last), _GAP):
                high = min(low + _GAP, end, last)
                submit(high, checker.not_zero, low, high)

        at = 0
        last = -(-exporter.size // disk.chunk_size)
        for positions, rows in IndexReader(repository, disk).windows():
            leaves = positions // LEAF_POSITIONS
            for leaf in np.unique(leaves).tolist():
                first, end = leaf * LEAF_POSITIONS, (leaf + 1) * LEAF_POSITIONS
                submit_gap(at, first)
                low, high = leaves.searchsorted([leaf, leaf + 1])
                submit(end, checker.differing, first, min(end, last), positions[low:high], rows[low:high])
                at = end
        submit_gap(at, last)
        while ahead:
            take()
    report.ranges += to_ranges(bad, size=size, chunk_size=disk.chunk_size)
    report.ranges = join_ranges(report.ranges, most=len(report.ranges))
    report.problems += [message for _offset, message in sorted(checker.unreadable)]
    return report


class _Checker:
    """Compares parts of the disk; used by several threads."""

    def __init__(self, exporter: Exporter, disk: Disk, chunk_id: Callable[[Buffer], bytes]) -> None:
        self._exporter = exporter
        self._chunk_size = disk.chunk_size
        self.unreadable: list[tuple[int, str]] = []
        """(offset, what happened) of what could not be read."""
        self._hasher = Hasher(exporter, size=exporter.size, chunk_size=disk.chunk_size, chunk_id=chunk_id)

    def differing(self, first: int, last: int, positions: Positions, rows: Rows) -> list[int]:
        """Positions of [first, last) whose chunk is not the one in `rows` (or zero, where there is none)."""
        wanted = dict(zip(positions.tolist(), range(len(positions)), strict=True))
        ids = ids_of(rows)
        bad: list[int] = []
        for low, high in self._data(first, last):
            there = self._ids(low, high - low)
            for position in range(low, high):
                i = wanted.pop(position, None)
                mine = there[(position - low) * ID_SIZE : (position - low + 1) * ID_SIZE]
                right = bytes(ID_SIZE) if i is None else ids[i * ID_SIZE : (i + 1) * ID_SIZE]
                if mine != right:
                    bad.append(position)
        bad += [p for p in wanted if p < last]  # stored in the point, a hole on this disk
        return sorted(bad)

    def not_zero(self, first: int, last: int) -> list[int]:
        """Positions of [first, last) with anything in them."""
        bad = []
        for low, high in self._data(first, last):
            for at in range(low, high, LEAF_POSITIONS):
                count = min(LEAF_POSITIONS, high - at)
                there = self._ids(at, count)
                bad += [at + i for i in range(count) if any(there[i * ID_SIZE : (i + 1) * ID_SIZE])]
        return bad

    def _ids(self, first: int, count: int) -> bytes:
        """Ids of the chunks on the disk; a chunk that can't be read has one that no chunk has."""
        try:
            return self._hasher.ids(first, count)
        except Unreadable as error:
            if count == 1:
                self.unreadable.append((error.offset, error.message))
                return _NO_ID
        return b"".join(self._ids(position, 1) for position in range(first, first + count))

    def _data(self, first: int, last: int) -> list[tuple[int, int]]:
        """(first, end) positions in [first, last) that may not be zero, ascending and apart."""
        size = self._chunk_size
        runs: list[tuple[int, int]] = []
        start, end = first * size, min(last * size, self._exporter.size)
        if start >= end:
            return runs
        for extent in self._exporter.extents(start, end):
            if extent.zero or not extent.length:
                continue
            low, high = extent.offset // size, -(-(extent.offset + extent.length) // size)
            if runs and low <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(high, runs[-1][1]))
            else:
                runs.append((low, high))
        return runs
