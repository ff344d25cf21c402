"""Check a disk: does it equal a recovery point, and where does it not?"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from manifests.entry import ID_SIZE, Positions, Rows, ids_of
from manifests.manifest import Disk
from manifests.tree import LEAF_POSITIONS
from pipeline.catalogue import Point
from pipeline.exporters.base import Exporter
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.prove import Hasher, to_ranges
from pipeline.verify.report import VerifyReport


def verify_disk(
    repository: Repository,
    point: Point,
    disk: Disk,
    exporter: Exporter,
    *,
    parallel: int = 4,
    watch: Watch = ignore,
) -> VerifyReport:
    """Hash the whole disk and compare with the index. A larger disk equals the point when the rest is zero."""
    report = VerifyReport(f"{exporter.name} was read and compared with {point.manifest.label} disk {disk.number}")
    if exporter.size < disk.size:
        report.ranges.append((exporter.size, disk.size - exporter.size))
        report.problems.append(f"{exporter.name} has {exporter.size} bytes, the disk of the point {disk.size}")
    counters = Counters(phase="verify", disk=exporter.name, total=exporter.size)
    size = max(disk.size, exporter.size)
    checker = _Checker(exporter, disk)
    bad: list[int] = []
    with ThreadPoolExecutor(parallel, "verify") as pool:
        ahead: deque[tuple[int, Future[list[int]]]] = deque()

        def take() -> None:
            end, future = ahead.popleft()
            bad.extend(future.result())
            counters.done = min(end * disk.chunk_size, counters.total)
            watch(counters)

        at = 0
        for positions, rows in IndexReader(repository, disk).windows():
            end = -(-(int(positions[-1]) + 1) // LEAF_POSITIONS) * LEAF_POSITIONS
            for first in range(at, end, LEAF_POSITIONS):
                low, high = positions.searchsorted([first, first + LEAF_POSITIONS])
                last = min(first + LEAF_POSITIONS, -(-exporter.size // disk.chunk_size))
                ahead.append((last, pool.submit(checker.differing, first, last, positions[low:high], rows[low:high])))
                if len(ahead) > 2 * parallel:
                    take()
            at = end
        last = -(-exporter.size // disk.chunk_size)
        if at < last:
            ahead.append((last, pool.submit(checker.not_zero, at, last)))
        while ahead:
            take()
    whole = [p for p in bad if p * disk.chunk_size < size]
    report.ranges += to_ranges(whole, size=size, chunk_size=disk.chunk_size)
    report.ranges.sort()
    return report


class _Checker:
    """Compares parts of the disk; used by several threads."""

    def __init__(self, exporter: Exporter, disk: Disk) -> None:
        self._exporter = exporter
        self._chunk_size = disk.chunk_size
        self._hasher = Hasher(exporter, size=exporter.size, chunk_size=disk.chunk_size)

    def differing(self, first: int, last: int, positions: Positions, rows: Rows) -> list[int]:
        """Positions of [first, last) whose chunk is not the one in `rows` (or zero, where there is none)."""
        wanted = dict(zip(positions.tolist(), range(len(positions)), strict=True))
        ids = ids_of(rows)
        bad = [p for p in wanted if p >= last]
        data = self._data(first, last)
        for low, high in data:
            there = self._hasher.ids(low, high - low)
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
                there = self._hasher.ids(at, count)
                bad += [at + i for i in range(count) if any(there[i * ID_SIZE : (i + 1) * ID_SIZE])]
        return bad

    def _data(self, first: int, last: int) -> list[tuple[int, int]]:
        """(first, end) positions in [first, last) that may not be zero, ascending and apart."""
        size = self._chunk_size
        runs: list[tuple[int, int]] = []
        for extent in self._exporter.extents(first * size, min(last * size, self._exporter.size)):
            if extent.zero or not extent.length:
                continue
            low, high = extent.offset // size, -(-(extent.offset + extent.length) // size)
            if runs and low <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(high, runs[-1][1]))
            else:
                runs.append((low, high))
        return runs
