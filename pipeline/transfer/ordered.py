"""The chunks of a disk in the order of their positions, got and worked on by several threads ahead of the reader."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from manifests.entry import PackTable
from manifests.manifest import Disk
from manifests.sealing import Buffer
from pipeline.errors import CorruptObject, FormatError
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.index_reader import Block, IndexReader
from pipeline.transfer.window import Window, cut

T = TypeVar("T")
Results = list[tuple[int, T]]

SLICE = 4 << 20
"""Plain bytes that are worked on together."""
_ENTRIES = 1 << 15
"""Of the index at a time."""
_MOST_WORKERS = 4


class OrderedChunks(Generic[T]):
    """`work(position, plain chunk)` for every chunk that is not zero, results by position. It is called in several
    threads at once, and its result may refer to the chunk's memory.

    `memory`: bytes held ahead of the reader. A quarter is plain; the rest are three windows of sealed ones (one that is
    fetched, one that is worked on, the end of the one before): the larger they are, the fewer requests.
    `parallel`: requests at a time. `name` is that of the disk in errors.
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
        self._ahead = max(memory // 4 // SLICE, 2)
        self._stored = memory // 4
        self._packs = PackTable()
        self._local = threading.local()
        self.fetched = 0
        """Stored bytes of what was given out."""

    def __iter__(self) -> Generator[tuple[int, T]]:
        """Raises CorruptObject, which names disk and range, and StoreError. Whoever stops early closes the iterator:
        what was not begun is then not done."""
        requests = ThreadPoolExecutor(self._parallel, "fetch")
        workers = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_WORKERS), "pack")
        try:
            ahead: deque[list[Future[Results[T]]]] = deque()
            for window, block in self._windows(requests):
                for part in self._slices(block):
                    ahead.append([workers.submit(self._run, window, job) for job in by_pack(*part)])
                    if len(ahead) >= self._ahead:
                        yield from _in_order(ahead.popleft())
                self.fetched += window.fetched
            while ahead:
                yield from _in_order(ahead.popleft())
        finally:
            # Requests that are under way end by their own time limit; nobody waits for what they bring.
            for pool in (workers, requests):
                pool.shutdown(wait=False, cancel_futures=True)

    def _windows(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Window, Block]]:
        """Each one while the next is fetched."""
        reader = IndexReader(self._repository, self._disk, self._packs)
        now: tuple[Window, Block] | None = None
        for block, jobs in cut(reader.windows(entries=_ENTRIES), stored=self._stored):
            following = Window(self._repository, self._packs, jobs, pool), block
            if now is not None:
                yield now
            now = following
        if now is not None:
            yield now

    def _slices(self, block: Block) -> Iterator[Block]:
        positions, rows = block
        most = max(SLICE // self._disk.chunk_size, 1)
        for start in range(0, len(positions), most):
            yield positions[start : start + most], rows[start : start + most]

    def _run(self, window: Window, job: PackJob) -> Results[T]:
        local = self._local
        if not hasattr(local, "fetcher"):
            local.fetcher = Fetcher(self._repository, self._disk.chunk_size, self._packs)
        fetcher: Fetcher = local.fetcher
        results: Results[T] = []
        try:
            for position, plain in fetcher.chunks(job, read=window.read_pack):
                results.append((position, self._work(position, plain)))
        except FormatError as error:
            raise damaged(self._name, self._disk, int(job.positions[len(results)]), error) from error
        return results


def damaged(name: str, disk: Disk, position: int, error: FormatError) -> CorruptObject:
    """The error for a chunk of the disk called `name`."""
    start = position * disk.chunk_size
    length = min(disk.chunk_size, disk.size - start)
    return CorruptObject(f"{name}: its {length} bytes at {start} cannot be had: {error.message}", remedy=error.remedy)


def _in_order(jobs: list[Future[Results[T]]]) -> list[tuple[int, T]]:
    return sorted((item for job in jobs for item in job.result()), key=lambda item: item[0])
