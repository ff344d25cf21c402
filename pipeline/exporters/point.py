"""A disk of a recovery point, read as if it were a disk."""

from __future__ import annotations

import shutil
import threading
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from manifests.entry import Rows, is_zero
from manifests.manifest import MAX_UNREADABLE, Disk
from manifests.tree import LEAF_POSITIONS
from pipeline.catalogue import Point
from pipeline.errors import FailbackError, Unreadable, Unsupported
from pipeline.exporters.base import Exporter, Extent
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, by_pack
from pipeline.transfer.index_copy import open_copy
from pipeline.transfer.index_file import StaleCopy


class PointExporter(Exporter):
    """Holes come from the index, bytes from the packs. What the source of the point could not read cannot be read here
    either, so that a copy of the point says the same of it. Every chunk is proved by its id.

    `folder` keeps a local copy of the index from point to point.
    """

    read_threads = 4

    def __init__(self, repository: Repository, point: Point, disk: Disk, folder: Path) -> None:
        """Raises CorruptObject when the index is damaged."""
        if len(disk.unreadable) >= MAX_UNREADABLE:
            raise Unsupported(
                f"{point.manifest.label} disk {disk.number} has {len(disk.unreadable)} unreadable ranges and more",
                remedy="restore it and export the restored disk",
            )
        self.name = f"{point.manifest.label} disk {disk.number} of {repository.store.name}"
        self.size = disk.size
        self.sector_size = disk.sector_size
        self.identity: str | None = f"point:{repository.document.id}/{point.object_hash}/{disk.number}"
        self._repository = repository
        self._disk = disk
        self._folder = folder
        self._copy = open_copy(repository, point.manifest, disk, folder)
        self._local = threading.local()

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        size, end = self._disk.chunk_size, min(end, self.size)
        at = start
        while at < end:
            first = at // size
            leaf = first // LEAF_POSITIONS
            last = min((leaf + 1) * LEAF_POSITIONS, -(-end // size))
            bad = self._unreadable(first * size, last * size)
            if self._copy.is_zero_leaf(leaf) and not bad:
                stop = min(last * size, end)
                yield Extent(at, stop - at, True)
                at = stop
                continue
            zero = is_zero(self._rows(first, last - first))
            for low, high in bad:
                zero[low // size - first : -(-high // size) - first] = False
            bounds = [*(np.flatnonzero(np.diff(zero)) + 1).tolist(), len(zero)]
            begin = 0
            for bound in bounds:
                stop = min((first + bound) * size, end)
                yield Extent(at, stop - at, bool(zero[begin]))
                at, begin = stop, bound

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        for low, high in self._unreadable(offset, end)[:1]:
            raise Unreadable(
                f"{self.name}: {high - low} bytes at {low} could not be read when it was exported",
                offset=low,
                length=high - low,
            )
        size = self._disk.chunk_size
        first = offset // size
        rows = self._rows(first, -(-end // size) - first)
        buffer[:] = bytes(len(buffer))
        stored = np.flatnonzero(~is_zero(rows))
        fetcher = self._fetcher()
        for job in by_pack((stored + first).astype("<u8"), rows[stored]):
            for position, plain in fetcher.chunks(job):
                low, high = max(position * size, offset), min((position + 1) * size, end)
                buffer[low - offset : high - offset] = memoryview(plain)[low - position * size : high - position * size]

    def check_unchanged(self) -> None:
        """A recovery point never changes."""

    def close(self) -> None:
        self._copy.close()

    def _unreadable(self, start: int, end: int) -> list[tuple[int, int]]:
        """(start, end) of what lies in a range and could not be read, ascending."""
        found = []
        ranges = self._disk.unreadable
        for at in range(max(bisect_right(ranges, (start, 0)) - 1, 0), len(ranges)):
            low, high = max(ranges[at][0], start), min(sum(ranges[at]), end)
            if ranges[at][0] >= end:
                break
            if low < high:
                found.append((low, high))
        return found

    def _fetcher(self) -> Fetcher:
        if not hasattr(self._local, "fetcher"):
            self._local.fetcher = Fetcher(self._repository, self._disk.chunk_size, self._copy.packs)
        found: Fetcher = self._local.fetcher
        return found

    def _rows(self, first: int, count: int) -> Rows:
        try:
            return self._copy.verified(first, count)
        except StaleCopy as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise FailbackError(
                f"the local copy of the index of {self.name} is damaged: {error}",
                remedy="it was removed; run the same command again",
            ) from error
