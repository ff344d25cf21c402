"""Restore: make one target disk equal a recovery point, moving only what it does not hold, and prove it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manifests.entry import PackTable, Positions, is_zero
from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import CorruptObject, FormatError, TargetMismatch, VerifyError
from pipeline.exporters.base import Exporter
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.index_copy import changed_only, fill, head_of
from pipeline.transfer.index_file import IndexFile, StaleCopy
from pipeline.transfer.index_reader import Block, IndexReader, differences
from pipeline.transfer.move import Mover
from pipeline.transfer.prove import Readable, to_ranges
from pipeline.transfer.read_back import ReadBack
from pipeline.transfer.restore_plan import Plan, Vouched, plan_restore
from pipeline.transfer.stage import Done, Stage, StageState
from pipeline.writers.base import BlockWriter


@dataclass(slots=True)
class Restored:
    """What was done to one target disk, and how it was proved."""

    mode: str
    reason: str
    proof: str
    counters: Counters


class DiskRestore:
    """One target disk. `seeds` are surviving disks of the same machine, read only, whose chunks need not be fetched.
    `vouched`: what the caller knows of the target's content, in place of what is known of it here."""

    def __init__(
        self,
        repository: Repository,
        point: Point,
        disk: Disk,
        writer: BlockWriter,
        stage: Stage,
        *,
        seeds: list[Exporter] | None = None,
        vouched: Vouched | None = None,
        parallel: int = 6,
        watch: Watch = ignore,
    ) -> None:
        self.repository = repository
        self.point = point
        self.disk = disk
        self.writer = writer
        self.stage = stage
        self.vouched = vouched
        self.parallel = parallel
        self.watch = watch
        self.counters = Counters(phase="restore", disk=writer.name, total=disk.size)
        self._seeds: list[tuple[Readable, int]] = [(seed, seed.size) for seed in seeds or []]
        self._packs = PackTable()
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
            if plan.copy is not None:
                plan.copy.close()
                # An equal disk of a later point: whoever asks what it holds is told that one.
                self.stage.save(self._state("staged", self.writer.guard()))
            self.counters.done = self.counters.total
            return Restored("unchanged", plan.reason, "proved before, and nobody wrote since", self.counters)
        if plan.mode == "refresh":
            try:
                if plan.copy is None:
                    proof = self._refresh_without_copy(plan)
                else:
                    with closing(plan.copy):
                        proof = self._refresh(plan)
                return self._finish(plan, proof)
            except StaleCopy as error:
                plan = Plan("hashed", f"what was known of the stage is damaged ({error})")
                self._announce(plan)
        try:
            with closing(IndexFile.create(self.stage.copy, self.disk.positions, self._packs)) as copy:
                proof = self._whole(plan, copy)
        except VerifyError:
            # What is noted as written did not stay: nothing that is known of the target may be built on.
            self._announce(Plan("hashed", ""))
            raise
        return self._finish(plan, proof)

    def _plan(self) -> Plan:
        return plan_restore(self.repository, self.point, self.disk, self.writer, self.stage, self.vouched)

    def _announce(self, plan: Plan) -> None:
        """Say in the stage that its content is about to change, before it does."""
        if plan.mode != "unchanged" and not plan.keep_done:
            since = plan.old.digest if plan.mode == "refresh" and plan.old is not None else ""
            if plan.mode == "hashed":
                since = "unknown"
            # What another restore noted must be gone before this one can be taken for its continuation.
            (self.stage.folder / "done").unlink(missing_ok=True)
            self.stage.save(self._state("staging", "", since))

    def _state(self, state: str, guard: str, since: str = "") -> StageState:
        return StageState.of(self.repository.document.id, self.point.manifest, self.disk, state, guard, since)

    # -- the whole disk --------------------------------------------------------------------------------------------

    def _whole(self, plan: Plan, copy: IndexFile) -> str:
        disk = self.disk
        done = Done(self.stage.folder / "done", disk.positions, keep=plan.keep_done)
        known_zero = self.writer.fresh or plan.keep_done or plan.rest_zero
        reader = IndexReader(self.repository, disk, self._packs)
        itself: list[tuple[Readable, int]] = [(self.writer, self.writer.size)] if plan.mode == "hashed" else []
        mover = self._mover([*itself, *self._seeds], known_zero=known_zero)
        at = 0
        for positions, rows in reader.windows():
            fill(copy, (positions, rows))
            end = int(positions[-1]) + 1
            if not known_zero:
                self._clear(at, end, positions)
            held = done.holds(positions)
            mover.move((positions[~held], rows[~held]), done)
            at = end
            self._progress(end)
        if not known_zero:
            self._clear(at, disk.positions, np.zeros(0, "<u8"))
            if self.writer.size > disk.size:
                self.writer.discard(disk.size, self.writer.size - disk.size)
        if copy.digest(size=disk.size, chunk_size=disk.chunk_size) != disk.digest:
            raise CorruptObject(
                f"the index of {self.point.manifest.label} disk {disk.number} does not give the digest in its manifest",
                remedy="`failback verify --read` tells what is damaged; restore another point",
            )
        self.writer.flush()
        self.counters.phase, self.counters.done = "prove", 0
        self._read_back().whole(copy)
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

    # -- only what differs -----------------------------------------------------------------------------------------

    def _refresh(self, plan: Plan) -> str:
        assert plan.old is not None
        assert plan.copy is not None
        disk, copy = self.disk, plan.copy
        self._packs = copy.packs
        spans: list[Block] = []
        done = Done(self.stage.folder / "done", disk.positions, keep=False)
        old = IndexReader(self.repository, plan.old, self._packs)
        new = IndexReader(self.repository, disk, self._packs)
        copy.invalidate()
        mover, read_back = self._mover(self._seeds, known_zero=False), self._read_back()
        for positions, rows in changed_only(copy, _readable(differences(old, new))):
            zero = is_zero(rows)
            self._discard_runs(positions[zero])
            mover.move((positions[~zero], rows[~zero]), done)
            copy.apply(positions, rows)
            spans.append((positions, rows))
            if sum(len(p) for p, _ in spans) >= 1 << 18:
                read_back.written(spans)
            self._progress(int(positions[-1]) + 1)
        read_back.written(spans)
        if copy.digest(size=disk.size, chunk_size=disk.chunk_size) != disk.digest:
            raise StaleCopy("the differences do not lead to the digest of the point")
        copy.commit(head_of(self.repository, self.point.manifest, disk, len(copy.packs)))
        return "what was written was read back and joined to the tree that was proved at staging"

    def _refresh_without_copy(self, plan: Plan) -> str:
        """Where there is no copy of the index that the target's content was proved with: no tree to join to, so the
        proof is that what differs between the two points was read back, and the rest vouched for."""
        assert plan.old is not None
        shutil.rmtree(self.stage.copy, ignore_errors=True)
        done = Done(self.stage.folder / "done", self.disk.positions, keep=False)
        readers = [IndexReader(self.repository, disk, self._packs) for disk in (plan.old, self.disk)]
        itself: list[tuple[Readable, int]] = [(self.writer, self.writer.size)]
        mover, read_back = self._mover([*itself, *self._seeds], known_zero=False), self._read_back()
        spans: list[Block] = []
        for positions, rows in _readable(differences(*readers)):
            zero = is_zero(rows)
            self._discard_runs(positions[zero])
            mover.move((positions[~zero], rows[~zero]), done)
            spans.append((positions, rows))
            if sum(len(p) for p, _ in spans) >= 1 << 18:
                read_back.written(spans)
            self._progress(int(positions[-1]) + 1)
        read_back.written(spans)
        return f"what differs from {plan.reason.removeprefix('the target holds ')} was read back, the rest vouched for"

    def _discard_runs(self, positions: Positions) -> None:
        size = self.disk.chunk_size
        for offset, length in to_ranges(positions.tolist(), size=self.disk.size, chunk_size=size):
            self.writer.discard(offset, length)

    # -- what both need --------------------------------------------------------------------------------------------

    def _mover(self, seeds: list[tuple[Readable, int]], *, known_zero: bool) -> Mover:
        return Mover(
            self.repository,
            self.disk,
            self.writer,
            self._packs,
            seeds=seeds,
            known_zero=known_zero,
            parallel=self.parallel,
            counters=self.counters,
            progress=self._progress,
        )

    def _read_back(self) -> ReadBack:
        return ReadBack(
            self.disk,
            self.writer,
            chunk_id=self.repository.chunk_id,
            parallel=self.parallel,
            progress=self._progress,
        )

    # -- the end ---------------------------------------------------------------------------------------------------

    def _progress(self, position: int) -> None:
        self.counters.done = max(self.counters.done, min(position * self.disk.chunk_size, self.disk.size))
        self.watch(self.counters)

    def _finish(self, plan: Plan, proof: str) -> Restored:
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
            plan = Plan("hashed", f"what was known of the stage is damaged ({error})")
            total = self.disk.live_bytes
        finally:
            if copy is not None:
                copy.close()
        return plan.mode, plan.reason, total

    def _candidates(self, plan: Plan) -> Iterator[Block]:
        """What a plan would move."""
        if plan.mode == "unchanged":
            return iter(())
        if plan.old is None:
            return IndexReader(self.repository, self.disk, self._packs).windows()
        if plan.copy is None:
            readers = [IndexReader(self.repository, disk, self._packs) for disk in (plan.old, self.disk)]
            return _readable(differences(*readers))
        self._packs = plan.copy.packs
        old, new = (IndexReader(self.repository, disk, self._packs) for disk in (plan.old, self.disk))
        return changed_only(plan.copy, _readable(differences(old, new)))


def _readable(blocks: Iterator[Block]) -> Iterator[Block]:
    """The differences of two indexes. The older one may be damaged or collected: the target can be hashed instead."""
    try:
        yield from blocks
    except FormatError as error:
        raise StaleCopy(error.message) from error
