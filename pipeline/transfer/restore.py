"""Restore: make one target disk equal a recovery point, moving only what it does not hold, and prove it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, ids_of, is_zero
from manifests.manifest import Disk
from manifests.tree import LEAF_POSITIONS
from pipeline.catalogue import Point, load
from pipeline.errors import (
    CatalogueError,
    CorruptObject,
    FormatError,
    SourceError,
    TargetMismatch,
    UsageError,
    VerifyError,
)
from pipeline.exporters.base import Exporter
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.index_copy import changed_only, fill, head_of
from pipeline.transfer.index_file import IndexFile, StaleCopy
from pipeline.transfer.index_reader import Block, IndexReader, differences
from pipeline.transfer.prove import Hasher, Readable, differing, leaf_of, to_ranges, unproved
from pipeline.transfer.stage import Done, Stage, StageState
from pipeline.writers.base import BlockWriter

_BATCH = 2 << 20
"""Plain bytes written with one call."""
_ACKNOWLEDGE_BYTES = 1 << 30
_ACKNOWLEDGE_SECONDS = 5.0
_SEED_RUN = 4 << 20
_BLOCK = 4096
"""What file systems allocate at least; where a target reads as zeros, blocks of zeros are not written."""


@dataclass(slots=True)
class Restored:
    """What was done to one target disk, and how it was proved."""

    mode: str
    reason: str
    proof: str
    counters: Counters


@dataclass(slots=True)
class _Plan:
    mode: str
    reason: str
    old: Disk | None = None
    copy: IndexFile | None = None
    keep_done: bool = False


class DiskRestore:
    """One target disk. `seeds` are surviving disks of the same machine, read only, whose chunks need not be fetched."""

    def __init__(
        self,
        repository: Repository,
        point: Point,
        disk: Disk,
        writer: BlockWriter,
        stage: Stage,
        *,
        seeds: list[Exporter] | None = None,
        parallel: int = 6,
        watch: Watch = ignore,
    ) -> None:
        self.repository = repository
        self.point = point
        self.disk = disk
        self.writer = writer
        self.stage = stage
        self.parallel = parallel
        self.watch = watch
        self.counters = Counters(phase="restore", disk=writer.name, total=disk.size)
        self._seeds: list[Readable] = list(seeds or [])
        self._seed_sizes = [seed.size for seed in seeds or []]
        self._local = threading.local()
        self._packs = PackTable()
        self._zero = bytes(_BLOCK)
        self._known_zero = False
        """What is not written yet reads as zeros."""
        if writer.size < disk.size:
            raise TargetMismatch(
                f"{writer.name} has {writer.size} bytes; {point.manifest.label} disk {disk.number} needs {disk.size}",
                remedy="use a larger disk",
            )

    def run(self) -> Restored:
        """Stage, flush, prove. Raises CorruptObject, TargetError, VerifyError; the stage then never counts as whole."""
        plan = self._plan()
        self._announce(plan)
        if plan.mode == "unchanged":
            assert plan.copy is not None
            plan.copy.close()
            self.counters.done = self.counters.total
            return Restored("unchanged", plan.reason, "proved before, and nobody wrote since", self.counters)
        if plan.mode == "refresh":
            try:
                assert plan.copy is not None
                with closing(plan.copy):
                    proof = self._refresh(plan)
                return self._finish(plan, proof)
            except StaleCopy as error:
                plan = _Plan("hashed", f"what was known of the stage is damaged ({error})")
                self._announce(plan)
        try:
            with closing(IndexFile.create(self.stage.copy, self.disk.positions, self._packs)) as copy:
                proof = self._whole(plan, copy)
        except VerifyError:
            # What is noted as written did not stay: nothing that is known of the target may be built on.
            self._announce(_Plan("hashed", ""))
            raise
        return self._finish(plan, proof)

    # -- what is there ---------------------------------------------------------------------------------------------

    def _plan(self) -> _Plan:
        state, label = self.stage.state, self.point.manifest.label
        if self.writer.fresh:
            return _Plan("full", "the target is new")
        if state is None:
            return _Plan("hashed", "nothing is known of what the target holds")
        mine = (self.repository.document.id, self.disk.size, self.disk.chunk_size)
        if (state.repository, state.size, state.chunk_size) != mine:
            return _Plan("hashed", f"the target held {state.machine}@{state.sequence} of another shape or repository")
        if state.state == "staging":
            if state.digest == self.disk.digest and not state.since:
                return _Plan("full", f"an earlier restore of {label} was cut short; it goes on", keep_done=True)
            return _Plan("hashed", f"an earlier restore to {state.machine}@{state.sequence} was cut short")
        if state.guard != self.writer.guard():
            return _Plan("hashed", "somebody wrote to the target since it was staged")
        return self._plan_refresh(state)

    def _plan_refresh(self, state: StageState) -> _Plan:
        held = f"{state.machine}@{state.sequence}"
        try:
            head, copy = IndexFile.open(self.stage.copy)
        except StaleCopy:
            return _Plan("hashed", "what was known of the stage is lost")
        if head.digest != state.digest:
            copy.close()
            return _Plan("hashed", "what was known of the stage is of another point")
        if state.digest == self.disk.digest:
            return _Plan("unchanged", f"the target holds {held}, which equals {self.point.manifest.label}", copy=copy)
        try:
            point = load(self.repository, state.machine, state.sequence)
        except (CatalogueError, FormatError, UsageError, ValueError):
            point = None  # gone, damaged, or what is known of the stage is
        disks = point.manifest.disks if point else ()
        old = next((d for d in disks if d.digest == state.digest and d.number == state.number), None)
        if old is None:
            copy.close()
            return _Plan("hashed", f"{held}, which the target holds, is no longer in the repository")
        return _Plan("refresh", f"the target holds {held}", old=old, copy=copy)

    def _announce(self, plan: _Plan) -> None:
        """Say in the stage that its content is about to change, before it does."""
        if plan.mode != "unchanged" and not plan.keep_done:
            since = self.stage.state.digest if plan.mode == "refresh" and self.stage.state else ""
            if plan.mode == "hashed":
                since = "unknown"
            # What another restore noted must be gone before this one can be taken for its continuation.
            (self.stage.folder / "done").unlink(missing_ok=True)
            self.stage.save(self._state("staging", "", since))

    def _state(self, state: str, guard: str, since: str = "") -> StageState:
        return StageState.of(self.repository.document.id, self.point.manifest, self.disk, state, guard, since)

    # -- the whole disk --------------------------------------------------------------------------------------------

    def _whole(self, plan: _Plan, copy: IndexFile) -> str:
        disk = self.disk
        done = Done(self.stage.folder / "done", disk.positions, keep=plan.keep_done)
        self._known_zero = self.writer.fresh or plan.keep_done
        reader = IndexReader(self.repository, disk, self._packs)
        if plan.mode == "hashed":
            self._seeds.insert(0, self.writer)
            self._seed_sizes.insert(0, self.writer.size)
        at = 0
        for positions, rows in reader.windows():
            fill(copy, (positions, rows))
            end = int(positions[-1]) + 1
            if not self._known_zero:
                self._clear(at, end, positions)
            held = done.holds(positions)
            self._move((positions[~held], rows[~held]), done)
            at = end
            self._progress(end)
        if not self._known_zero:
            self._clear(at, disk.positions, np.zeros(0, "<u8"))
            if self.writer.size > disk.size:
                self.writer.discard(disk.size, self.writer.size - disk.size)
        if copy.digest(size=disk.size, chunk_size=disk.chunk_size) != disk.digest:
            raise CorruptObject(
                f"the index of {self.point.manifest.label} disk {disk.number} does not give the digest in its manifest",
                remedy="`failback verify --read` tells what is damaged; restore another point",
            )
        self.writer.flush()
        self._prove_whole(copy)
        copy.commit(head_of(self.repository, self.point.manifest, disk, len(copy.packs)))
        return "every chunk was read back from the target"

    def _clear(self, first: int, end: int, stored: Positions) -> None:
        """Make the positions of [first, end) that are not in `stored` read as zeros."""
        size = self.disk.chunk_size
        edges = [first - 1, *stored.astype(np.int64).tolist(), end]
        for low, high in pairwise(edges):
            start, stop = (low + 1) * size, min(high * size, self.disk.size)
            if start >= stop:
                continue
            for extent in self.writer.extents(start, stop):
                if not extent.zero:
                    self.writer.discard(extent.offset, extent.length)

    def _prove_whole(self, copy: IndexFile) -> None:
        """Read the target back and compare leaf by leaf. Raises VerifyError."""
        disk = self.disk
        self.writer.drop_cache()
        hasher = Hasher(self.writer, size=disk.size, chunk_size=disk.chunk_size, chunk_id=self.repository.chunk_id)
        self.counters.phase, self.counters.done = "prove", 0
        bad: list[int] = []
        with ThreadPoolExecutor(self.parallel, "prove") as pool:
            ahead: deque[tuple[int, Future[bytes]]] = deque()

            def take() -> None:
                leaf, future = ahead.popleft()
                if future.result() != copy.leaf(leaf):
                    bad.extend(differing(hasher, copy, leaf, disk.positions))
                self._progress((leaf + 1) * LEAF_POSITIONS)

            for leaf, data in self._leaves_with_data():
                ahead.append((leaf, pool.submit(leaf_of, hasher, data, leaf, disk.positions)))
                if len(ahead) > 2 * self.parallel:
                    take()
            while ahead:
                take()
        holes = set(copy.nonzero_leaves()) - self._seen_leaves
        for leaf in sorted(holes):
            bad.extend(differing(hasher, copy, leaf, disk.positions))
        self._raise_if_bad(bad)

    def _leaves_with_data(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Leaves in which the target may hold something, and where in them."""
        size = self.disk.chunk_size
        self._seen_leaves: set[int] = set()
        current: list[tuple[int, int]] = []
        leaf = -1
        for extent in self.writer.extents(0, self.disk.size):
            if extent.zero:
                continue
            low, high = extent.offset // size, -(-(extent.offset + extent.length) // size)
            while low < high:
                number = low // LEAF_POSITIONS
                stop = min(high, (number + 1) * LEAF_POSITIONS)
                if number != leaf:
                    if current:
                        self._seen_leaves.add(leaf)
                        yield leaf, current
                    leaf, current = number, []
                if current and current[-1][1] >= low:
                    current[-1] = (current[-1][0], max(current[-1][1], stop))
                else:
                    current.append((low, stop))
                low = stop
        if current:
            self._seen_leaves.add(leaf)
            yield leaf, current

    def _raise_if_bad(self, bad: list[int]) -> None:
        if not bad:
            return
        ranges = to_ranges(sorted(bad), size=self.disk.size, chunk_size=self.disk.chunk_size)
        shown = ", ".join(f"{o}+{n}" for o, n in ranges[:5]) + (" …" if len(ranges) > 5 else "")
        raise VerifyError(
            f"{self.writer.name} does not read back what was written, at bytes {shown}",
            remedy="the disk or its connection is faulty, or somebody else wrote to it; run the same command again",
        )

    # -- only what differs -----------------------------------------------------------------------------------------

    def _refresh(self, plan: _Plan) -> str:
        assert plan.old is not None
        assert plan.copy is not None
        disk, copy = self.disk, plan.copy
        self._packs = copy.packs
        spans: list[Block] = []
        done = Done(self.stage.folder / "done", disk.positions, keep=False)
        old = IndexReader(self.repository, plan.old, self._packs)
        new = IndexReader(self.repository, disk, self._packs)
        copy.invalidate()
        hasher = Hasher(self.writer, size=disk.size, chunk_size=disk.chunk_size, chunk_id=self.repository.chunk_id)
        for positions, rows in changed_only(copy, _readable(differences(old, new))):
            zero = is_zero(rows)
            self._discard_runs(positions[zero])
            self._move((positions[~zero], rows[~zero]), done)
            copy.apply(positions, rows)
            spans.append((positions, rows))
            if sum(len(p) for p, _ in spans) >= 1 << 18:
                self._prove_written(hasher, spans)
            self._progress(int(positions[-1]) + 1)
        self._prove_written(hasher, spans)
        if copy.digest(size=disk.size, chunk_size=disk.chunk_size) != disk.digest:
            raise StaleCopy("the differences do not lead to the digest of the point")
        copy.commit(head_of(self.repository, self.point.manifest, disk, len(copy.packs)))
        return "what was written was read back and joined to the tree that was proved at staging"

    def _prove_written(self, hasher: Hasher, spans: list[Block]) -> None:
        self.writer.flush()
        bad: list[int] = []
        for positions, rows in spans:
            bad += unproved(hasher, positions, rows)
        spans.clear()
        self._raise_if_bad(bad)

    def _discard_runs(self, positions: Positions) -> None:
        size = self.disk.chunk_size
        for offset, length in to_ranges(positions.tolist(), size=self.disk.size, chunk_size=size):
            self.writer.discard(offset, length)

    # -- moving chunks ---------------------------------------------------------------------------------------------

    def _move(self, block: Block, done: Done) -> None:
        """Write the chunks of a block (no zeros): from the seeds what they hold, the rest from the store."""
        positions, rows = block
        with ThreadPoolExecutor(self.parallel, "restore") as pool:
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
        size = self.disk.chunk_size
        step = max(_SEED_RUN // size, 1)
        cuts = (np.diff(positions) != 1) | (positions[1:] // step != positions[:-1] // step)
        bounds = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(positions)]
        for seed, seed_size in zip(self._seeds, self._seed_sizes, strict=True):
            hasher = Hasher(seed, size=seed_size, chunk_size=size, chunk_id=self.repository.chunk_id)
            ahead: deque[tuple[int, int, Future[list[int]]]] = deque()

            def take(ahead: deque[tuple[int, int, Future[list[int]]]] = ahead) -> None:
                start, end, future = ahead.popleft()
                hits = np.array(future.result(), np.intp) + start
                missing[hits] = False
                self.counters.deduplicated += len(hits) * size
                done.add(positions[hits])
                self._progress(int(positions[end - 1]) + 1)

            held = int(np.searchsorted(positions, -(-seed_size // size)))
            for start, stop in pairwise(bounds):
                end = min(stop, held)
                if start >= end or not missing[start:end].any():
                    continue
                wanted = missing[start:end]
                run = (hasher, positions[start:end], rows[start:end], wanted.copy(), seed is self.writer)
                ahead.append((start, end, pool.submit(self._seed_run, *run)))
                if len(ahead) > 2 * self.parallel:
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
        size = self.disk.chunk_size
        first = int(positions[0])
        try:
            _buffer, view = hasher.read(first, len(positions))
        except SourceError:
            return []  # a seed that can't be read here has nothing to give
        ids = ids_of(rows)
        hits = []
        for i in np.flatnonzero(wanted).tolist():
            chunk = view[i * size : (i + 1) * size]
            if self.repository.chunk_id(chunk) == ids[i * ID_SIZE : (i + 1) * ID_SIZE]:
                hits.append(i)
                if not in_place:
                    offset = (first + i) * size
                    self._write(offset, [bytes(chunk[: min(size, self.disk.size - offset)])])
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
            self.counters.read += fetched
            self.counters.written += plain
            self._progress(int(job.positions[-1]) + 1)
            noted.append(job.positions)
            written += plain
            if written >= _ACKNOWLEDGE_BYTES or time.monotonic() - since >= _ACKNOWLEDGE_SECONDS:
                self.writer.flush()
                self._note(done, noted)
                written, since = 0, time.monotonic()

        for job in jobs:
            ahead.append((job, pool.submit(self._restore_pack, job)))
            if len(ahead) > self.parallel + 1:
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
            local.fetcher = Fetcher(self.repository, self.disk.chunk_size, self._packs)
        fetcher: Fetcher = local.fetcher
        before = fetcher.fetched
        size, end = self.disk.chunk_size, self.disk.size
        most = max(_BATCH // size, 1)
        batch: list[bytes | memoryview] = []
        first = following = -1
        written = 0
        for position, plain in fetcher.chunks(job):
            if position != following or len(batch) >= most:
                if batch:
                    self._write(first * size, batch)
                batch, first = [], position
            if (position + 1) * size > end:
                plain = bytes(plain[: end - position * size])
            batch.append(plain)
            written += len(plain)
            following = position + 1
        if batch:
            self._write(first * size, batch)
        return fetcher.fetched - before, written

    def _write(self, offset: int, chunks: list[bytes | memoryview]) -> None:
        """Write chunks that stand side by side. Where the target reads as zeros, blocks of zeros are left out."""
        batch: list[bytes | memoryview] = []
        start = following = offset
        for chunk in chunks:
            for low, high in self._data_in(chunk) if self._known_zero else self._not_holes(following, chunk):
                if following + low != start + sum(map(len, batch)):
                    if batch:
                        self.writer.write(start, batch)
                    batch, start = [], following + low
                batch.append(chunk if high - low == len(chunk) else memoryview(chunk)[low:high])
            following += len(chunk)
        if batch:
            self.writer.write(start, batch)

    def _not_holes(self, offset: int, chunk: bytes | memoryview) -> list[tuple[int, int]]:
        """(low, high) of what must be written where the target may hold something: all but blocks of zeros that it
        has as holes. Else a refresh would fill up a sparse disk."""
        ranges = list(self._data_in(chunk))
        if ranges == [(0, len(chunk))]:
            return ranges
        held = self.writer.extents(offset, offset + len(chunk))
        ranges += [(e.offset - offset, e.offset - offset + e.length) for e in held if not e.zero]
        joined: list[tuple[int, int]] = []
        for low, high in sorted(ranges):
            if joined and low <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        return joined

    def _data_in(self, chunk: bytes | memoryview) -> Iterator[tuple[int, int]]:
        """(low, high) of what is not blocks of zeros. A chunk that did not compress (a view) has none."""
        length = len(chunk)
        if not isinstance(chunk, bytes):
            yield 0, length
            return
        low = -1
        for at in range(0, length, _BLOCK):
            if chunk.startswith(self._zero, at):
                if low >= 0:
                    yield low, at
                low = -1
            elif low < 0:
                low = at
        if low >= 0:
            yield low, length

    # -- the end ---------------------------------------------------------------------------------------------------

    def _progress(self, position: int) -> None:
        self.counters.done = max(self.counters.done, min(position * self.disk.chunk_size, self.disk.size))
        self.watch(self.counters)

    def _finish(self, plan: _Plan, proof: str) -> Restored:
        self.writer.flush()
        self.stage.save(self._state("staged", self.writer.guard()))
        (self.stage.folder / "done").unlink(missing_ok=True)
        self.counters.done = self.counters.total
        self.watch(self.counters)
        return Restored(plan.mode, plan.reason, proof, self.counters)

    def to_move(self) -> tuple[str, str, int]:
        """(mode, reason, stored bytes that would be fetched), without writing anything."""
        plan = self._plan()
        copy = plan.copy
        try:
            total = sum(int(rows["length"].sum(dtype=np.int64)) for _positions, rows in self._candidates(plan))
        except StaleCopy as error:
            plan = _Plan("hashed", f"what was known of the stage is damaged ({error})")
            total = self.disk.live_bytes
        finally:
            if copy is not None:
                copy.close()
        return plan.mode, plan.reason, total

    def _candidates(self, plan: _Plan) -> Iterator[Block]:
        """What a plan would move."""
        if plan.mode == "unchanged":
            return iter(())
        if plan.old is None or plan.copy is None:
            return IndexReader(self.repository, self.disk, self._packs).windows()
        self._packs = plan.copy.packs
        old, new = (IndexReader(self.repository, disk, self._packs) for disk in (plan.old, self.disk))
        return changed_only(plan.copy, _readable(differences(old, new)))


def _readable(blocks: Iterator[Block]) -> Iterator[Block]:
    """The differences of two indexes. The older one may be damaged or collected: the target can be hashed instead."""
    try:
        yield from blocks
    except FormatError as error:
        raise StaleCopy(error.message) from error
