"""Moving chunks to a target disk: from other disks what they hold, the rest from the store."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, ids_of
from manifests.manifest import Disk
from pipeline.errors import SourceError
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.index_reader import Block
from pipeline.transfer.prove import Hasher, Readable
from pipeline.transfer.sparse import SparseTarget
from pipeline.transfer.stage import Done
from pipeline.writers.base import BlockWriter

_BATCH = 2 << 20
"""Plain bytes written with one call."""
_ACKNOWLEDGE_BYTES = 1 << 30
_ACKNOWLEDGE_SECONDS = 5.0
_SEED_RUN = 4 << 20


class Mover:
    """To one target disk. `packs` are those that rows refer to; `seeds` are disks with their sizes, in the order in
    which they are asked, the target itself where it may hold chunks already. `progress` is told positions."""

    def __init__(
        self,
        repository: Repository,
        disk: Disk,
        writer: BlockWriter,
        packs: PackTable,
        *,
        seeds: Sequence[tuple[Readable, int]],
        known_zero: bool,
        parallel: int,
        counters: Counters,
        progress: Callable[[int], None],
    ) -> None:
        self._repository = repository
        self._disk = disk
        self._writer = writer
        self._packs = packs
        self._seeds = seeds
        self._target = SparseTarget(writer, known_zero=known_zero)
        self._parallel = parallel
        self._counters = counters
        self._progress = progress
        self._local = threading.local()

    def move(self, block: Block, done: Done) -> None:
        """Write the chunks of a block (no zeros): from the seeds what they hold, the rest from the store."""
        positions, rows = block
        with ThreadPoolExecutor(self._parallel, "restore") as pool:
            try:
                missing = self._from_seeds(pool, positions, rows, done)
                jobs = by_pack(positions[missing], rows[missing])
                self._acknowledge(pool, jobs, done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _from_seeds(self, pool: ThreadPoolExecutor, positions: Positions, rows: Rows, done: Done) -> np.ndarray:
        """Which entries no seed holds at their position; the others are written (or there already)."""
        missing = np.ones(len(positions), bool)
        if not self._seeds or not len(positions):
            return missing
        size = self._disk.chunk_size
        step = max(_SEED_RUN // size, 1)
        cuts = (np.diff(positions) != 1) | (positions[1:] // step != positions[:-1] // step)
        bounds = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(positions)]
        for seed, seed_size in self._seeds:
            hasher = Hasher(seed, size=seed_size, chunk_size=size, chunk_id=self._repository.chunk_id)
            ahead: deque[tuple[int, int, Future[list[int]]]] = deque()

            def take(ahead: deque[tuple[int, int, Future[list[int]]]] = ahead) -> None:
                start, end, future = ahead.popleft()
                hits = np.array(future.result(), np.intp) + start
                missing[hits] = False
                self._counters.deduplicated += len(hits) * size
                done.add(positions[hits])
                self._progress(int(positions[end - 1]) + 1)

            held = int(np.searchsorted(positions, -(-seed_size // size)))
            for start, stop in pairwise(bounds):
                end = min(stop, held)
                if start >= end or not missing[start:end].any():
                    continue
                wanted = missing[start:end]
                run = (hasher, positions[start:end], rows[start:end], wanted.copy(), seed is self._writer)
                ahead.append((start, end, pool.submit(self._seed_run, *run)))
                if len(ahead) > 2 * self._parallel:
                    take()
            while ahead:
                take()
        return missing

    def _seed_run(
        self,
        hasher: Hasher,
        positions: Positions,
        rows: Rows,
        wanted: np.ndarray,
        in_place: bool,
    ) -> list[int]:
        """Which of a run's entries the seed holds; they are written to the target, unless it is the seed."""
        size = self._disk.chunk_size
        first = int(positions[0])
        try:
            view = hasher.read(first, len(positions))
        except SourceError:
            return []  # a seed that can't be read here has nothing to give
        ids = ids_of(rows)
        hits = []
        for i in np.flatnonzero(wanted).tolist():
            chunk = view[i * size : (i + 1) * size]
            if self._repository.chunk_id(chunk) == ids[i * ID_SIZE : (i + 1) * ID_SIZE]:
                hits.append(i)
                if not in_place:
                    offset = (first + i) * size
                    self._target.write(offset, [bytes(chunk[: min(size, self._disk.size - offset)])])
        return hits

    def _acknowledge(self, pool: ThreadPoolExecutor, jobs: Iterable[PackJob], done: Done) -> None:
        """Run the jobs; flush from time to time and note what is then surely on the target."""
        ahead: deque[tuple[PackJob, Future[tuple[int, int]]]] = deque()
        noted: list[Positions] = []
        written, since = 0, time.monotonic()

        def take() -> None:
            nonlocal written, since
            job, future = ahead.popleft()
            fetched, plain = future.result()
            self._counters.read += fetched
            self._counters.written += plain
            self._progress(int(job.positions[-1]) + 1)
            noted.append(job.positions)
            written += plain
            if written >= _ACKNOWLEDGE_BYTES or time.monotonic() - since >= _ACKNOWLEDGE_SECONDS:
                self._writer.flush()
                self._note(done, noted)
                written, since = 0, time.monotonic()

        for job in jobs:
            ahead.append((job, pool.submit(self._restore_pack, job)))
            if len(ahead) > self._parallel + 1:
                take()
        while ahead:
            take()

    def _note(self, done: Done, noted: list[Positions]) -> None:
        if noted:
            done.add(np.concatenate(noted))
        noted.clear()
        done.save()

    def _restore_pack(self, job: PackJob) -> tuple[int, int]:
        """Fetch, decode, check and write the chunks of one pack; returns bytes fetched and written."""
        local = self._local
        if not hasattr(local, "fetcher"):
            local.fetcher = Fetcher(self._repository, self._disk.chunk_size, self._packs)
        fetcher: Fetcher = local.fetcher
        before = fetcher.fetched
        size, end = self._disk.chunk_size, self._disk.size
        most = max(_BATCH // size, 1)
        batch: list[bytes | memoryview] = []
        first = following = -1
        written = 0
        for position, plain in fetcher.chunks(job):
            if position != following or len(batch) >= most:
                if batch:
                    self._target.write(first * size, batch)
                batch, first = [], position
            if (position + 1) * size > end:
                plain = bytes(plain[: end - position * size])
            batch.append(plain)
            written += len(plain)
            following = position + 1
        if batch:
            self._target.write(first * size, batch)
        return fetcher.fetched - before, written
