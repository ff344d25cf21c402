"""The chunks of a disk in the order of their positions, got and worked on by several threads ahead of the reader."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from manifests.entry import PackTable
from manifests.manifest import Disk
from manifests.sealing import Buffer
from pipeline.errors import CorruptObject, FormatError
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.index_reader import Block, IndexReader

T = TypeVar("T")

SLICE = 8 << 20
"""Plain bytes that are asked for together: about three requests for a pack that holds nothing else."""
_ENTRIES = 1 << 15
"""Of the index at a time."""


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """What one job gave: what `work` made of its chunks, in the order of their positions."""

    results: list[tuple[int, T]]
    fetched: int
    """Stored bytes."""


class OrderedChunks(Generic[T]):
    """`work(position, plain chunk)` for every chunk that is not zero, results by position. It is called in several
    threads at once; its result may refer to the chunk's memory. At most about `memory` plain bytes are held.

    `name` is that of the disk in errors.
    """

    def __init__(
        self,
        repository: Repository,
        disk: Disk,
        work: Callable[[int, Buffer], T],
        *,
        name: str,
        parallel: int,
        memory: int,
    ) -> None:
        self._repository = repository
        self._disk = disk
        self._work = work
        self._name = name
        self._parallel = parallel
        self._ahead = max(memory // SLICE, 2)
        self._packs = PackTable()
        self._local = threading.local()
        self.fetched = 0
        """Stored bytes of what was given out."""

    def __iter__(self) -> Iterator[tuple[int, T]]:
        """Raises CorruptObject, which names disk and range, and StoreError. Whoever stops early closes the iterator:
        what was not begun is then not done."""
        reader = IndexReader(self._repository, self._disk, self._packs)
        pool = ThreadPoolExecutor(self._parallel, "stream")
        try:
            ahead: deque[list[Future[Fetched[T]]]] = deque()
            for block in self._slices(reader.windows(entries=_ENTRIES)):
                ahead.append([pool.submit(self._run, job) for job in by_pack(*block)])
                if len(ahead) >= self._ahead:
                    yield from self._in_order(ahead.popleft())
            while ahead:
                yield from self._in_order(ahead.popleft())
        finally:
            # Requests that are under way end by their own time limit; nobody waits for what they bring.
            pool.shutdown(wait=False, cancel_futures=True)

    def _slices(self, windows: Iterator[Block]) -> Iterator[Block]:
        most = max(SLICE // self._disk.chunk_size, 1)
        for positions, rows in windows:
            for start in range(0, len(positions), most):
                yield positions[start : start + most], rows[start : start + most]

    def _in_order(self, jobs: list[Future[Fetched[T]]]) -> Iterator[tuple[int, T]]:
        done = [job.result() for job in jobs]
        self.fetched += sum(one.fetched for one in done)
        if len(done) == 1:
            return iter(done[0].results)
        return iter(sorted((item for one in done for item in one.results), key=lambda item: item[0]))

    def _run(self, job: PackJob) -> Fetched[T]:
        local = self._local
        if not hasattr(local, "fetcher"):
            local.fetcher = Fetcher(self._repository, self._disk.chunk_size, self._packs)
        fetcher: Fetcher = local.fetcher
        before = fetcher.fetched
        results: list[tuple[int, T]] = []
        try:
            for position, plain in fetcher.chunks(job):
                results.append((position, self._work(position, plain)))
        except FormatError as error:
            raise self._damaged(int(job.positions[len(results)]), error) from error
        if (np.diff(job.positions.astype(np.int64)) < 0).any():  # by offset, in a pack whose chunks were joined
            results.sort(key=lambda item: item[0])
        return Fetched(results, fetcher.fetched - before)

    def _damaged(self, position: int, error: FormatError) -> CorruptObject:
        size = self._disk.chunk_size
        start = position * size
        length = min(size, self._disk.size - start)
        return CorruptObject(
            f"{self._name}: its {length} bytes at {start} cannot be had: {error.message}", remedy=error.remedy
        )
