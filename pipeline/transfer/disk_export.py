"""Export of one disk: what is read, sent and indexed, and the disk's part of the manifest."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manifests.entry import PackTable, Positions
from manifests.manifest import MAX_UNREADABLE, Disk, Manifest
from manifests.ranges import join_ranges
from manifests.repository import check_chunk_size
from pipeline.catalogue import Point
from pipeline.errors import FailbackError, StoreError
from pipeline.laps import Laps
from pipeline.progress import Counters, Watch
from pipeline.repository import Repository
from pipeline.transfer.change_map import changed_extents, empty_maps
from pipeline.transfer.compaction import Again, Compaction
from pipeline.transfer.damaged_packs import DamagedPacks
from pipeline.transfer.export_request import DiskSource, ExportOptions
from pipeline.transfer.forecast import forecast
from pipeline.transfer.index_copy import claimed, copy_folder, head_of, open_copy
from pipeline.transfer.index_file import IndexFile, StaleCopy
from pipeline.transfer.index_writer import FullIndex, IndexWriter, OverlayIndex
from pipeline.transfer.known_chunks import KnownChunks
from pipeline.transfer.level import LevelControl
from pipeline.transfer.outlet import Outlet
from pipeline.transfer.pack_lists import Put, packs_of
from pipeline.transfer.pack_uses import PackUses
from pipeline.transfer.parent import disk_of
from pipeline.transfer.prove import to_ranges
from pipeline.transfer.scan import Scanner, Work, plan, plan_changes, scan_ahead
from pipeline.transfer.send import Sender
from pipeline.transfer.session import Attempt, Session


@dataclass(slots=True)
class DiskResult:
    """What happened to one disk."""

    number: int
    name: str
    size: int
    mode: str
    """full, incremental (every block compared), or changed blocks."""
    reason: str
    counters: Counters
    unreadable: list[tuple[int, int]]
    metadata: int = 0
    """Bytes of pages, segments, pack lists and journals written."""
    warnings: list[str] = field(default_factory=list)


def chunk_size_of(repository: Repository, options: ExportOptions, earlier: Disk | None) -> int:
    """Bytes of a chunk: what was asked for, else what the disk had, else the repository's default."""
    return check_chunk_size(options.chunk_size or (earlier.chunk_size if earlier else repository.document.chunk_size))


class DiskExport:
    """The export of one disk."""

    def __init__(
        self,
        repository: Repository,
        machine: str,
        number: int,
        source: DiskSource,
        options: ExportOptions,
        parent: Point | None,
        session: Session | None,
        attempts: list[Attempt],
        work: Path,
        tell: Callable[[str], object],
        laps: Laps,
    ) -> None:
        self.repository = repository
        self.number = number
        self.source = source
        self.exporter = source.exporter
        self.options = options
        self.session = session
        self.attempts = attempts
        self.work = work
        self.tell = tell
        self.laps = laps
        self.folder = copy_folder(options.state, repository, machine, number)
        self._held, self._ours = ExitStack(), False
        """The claim to that folder. Without it there is one in `work`, which ends with this export."""
        self.parent_point = parent
        self.parent: Disk | None = None
        self.resized: Disk | None = None
        self.renewed: Disk | None = None
        self._files = ExitStack()
        """Local copies of indexes that are open."""
        self.reason = "there is no earlier point" if not options.full else "asked for with --full"
        if parent is not None:
            self._choose_parent(parent)
        earlier = self.parent or self.resized or self.renewed
        self.lineage = earlier.lineage if earlier else uuid.uuid4().hex
        self.chunk_size = chunk_size_of(repository, options, earlier)
        self.positions = -(-self.exporter.size // self.chunk_size)

    def _choose_parent(self, parent: Point) -> None:
        disk = disk_of(parent, self.number)
        label = parent.manifest.label
        if disk is None:
            self.reason = f"{label} has no disk {self.number}"
        elif self.options.chunk_size and self.options.chunk_size != disk.chunk_size:
            self.reason = f"{label} has chunks of {disk.chunk_size} bytes"
        elif parent.generation != self.repository.sealing.generation:
            self.reason = f"the repository's keys were renewed after {label}"
            self.renewed = disk
        elif disk.size != self.exporter.size:
            self.reason = f"the disk had {disk.size} bytes in {label}; chunks it still has are not sent again"
            self.resized = disk
        else:
            self.parent = disk
            self.reason = f"compared with {label}"

    def run_until_copy_is_good(self, watch: Watch) -> tuple[Disk, DiskResult, Callable[[Manifest], None]]:
        """Run; when the local copy of the parent's index turns out damaged, make it anew and run again."""
        self._ours = self._held.enter_context(claimed(self.folder))
        if not self._ours:
            self.folder = self.work / f"parent{self.number}"
        try:
            return self._run(watch)
        except StaleCopy:
            self._files.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            return self._run(watch)

    def close(self) -> None:
        """When the point is committed and kept, or whatever else ended its export."""
        self._files.close()
        self._held.close()

    def _run(self, watch: Watch) -> tuple[Disk, DiskResult, Callable[[Manifest], None]]:
        options, exporter = self.options, self.exporter
        counters = Counters(phase="export", disk=self.source.name, total=exporter.size)
        copy = self._parent_copy()
        packs = copy.packs if copy else PackTable()
        uses = self._uses(copy)
        workers = options.workers or (os.cpu_count() or 1) + 1
        limit = max(options.memory // 8, 16 << 20)
        with (
            ThreadPoolExecutor(max(1, min(options.uploads, limit >> 23)), "upload") as uploads,
            ThreadPoolExecutor(workers, "scan") as scanners,
        ):
            outlet = Outlet(self.repository, self.session, self.number, uploads)
            index, target = self._index(copy, packs, outlet.put)
            damaged = DamagedPacks(self.repository, self.tell)
            known = self._known(packs, damaged)
            sender = Sender(
                outlet,
                index.add,
                packs,
                counters,
                lineage=bytes.fromhex(self.lineage),
                chunk_size=self.chunk_size,
                sealing=self.repository.sealing,
                limit=limit,
            )
            scanner = Scanner(
                exporter,
                self.chunk_size,
                parent=copy,
                journaled=known.journaled,
                bases=known.bases,
                sent=sender.sent,
                keep_going=options.keep_going,
                level=options.level,
                chunk_id=self.repository.chunk_id,
            )
            level = LevelControl(options.level, options.top_level)
            maps = empty_maps(exporter)
            mode, works = self._works(copy)
            self.tell(f"disk {self.number}: {mode}, {self.reason}")
            unreadable: list[tuple[int, int]] = []
            missed = 0
            self.laps.lap("plan")
            try:
                for scanned, end in scan_ahead(scanners, scanner, works, workers):
                    sender.add(scanned)
                    unreadable += scanned.unreadable
                    if len(unreadable) > 2 * MAX_UNREADABLE:
                        unreadable = join_ranges(unreadable, most=MAX_UNREADABLE)
                    counters.done = max(counters.done, min(end * self.chunk_size, exporter.size))
                    scanner.level = level.after(counters.sent)
                    watch(counters)
                sender.flush()
                if isinstance(index, OverlayIndex):
                    again = damaged.positions(index)
                    if uses is not None and not options.final:
                        compaction = Compaction(self.repository, bytes.fromhex(self.lineage), index, uses)
                        sent = counters.sent + known.journaled_bytes
                        # Every block was compared: going through the local copy once more is little beside it.
                        sparse = compaction.choose(sent, whole=mode == "incremental", pool=uploads)
                        again = np.union1d(again, sparse)
                    sender.go_on(index.move)
                    changed = counters.sent
                    reader = Again(scanner.without_parent(), copy=index.copy)
                    for scanned, _end in scan_ahead(scanners, reader, self._works_of(again), workers):
                        sender.add(scanned)
                        missed += scanned.missed
                        watch(counters)
                    sender.flush()
                    counters.resent = counters.sent - changed
            except BaseException as error:
                scanners.shutdown(wait=False, cancel_futures=True)
                uploads.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, StoreError):
                    with suppress(FailbackError):
                        sender.give_up()
                raise
            self.laps.lap("read")
            counters.done = counters.total
            watch(counters)
            found, digest = index.finish()
            stored = known.stored | sender.stored
            lists = index.pack_lists(stored)
        self.laps.lap("index")
        result = DiskResult(
            self.number, self.source.name, exporter.size, mode, self.reason, counters, unreadable, outlet.metadata
        )
        if missed and mode == "changed blocks" and options.consistency != "torn":
            result.warnings.append(
                f"disk {self.number}: {missed} chunks differ from the parent point though the known changes leave them"
                " out: export once with --no-change-maps and without --changes"
            )
        parent = self.parent if copy else None
        disk = Disk(
            number=self.number,
            lineage=self.lineage,
            name=self.source.name,
            size=exporter.size,
            sector_size=exporter.sector_size,
            chunk_size=self.chunk_size,
            bus=self.source.bus,
            boot=self.source.boot,
            serial=self.source.serial,
            source_format=self.source.source_format,
            digest=digest,
            index=found,
            packs=lists.ids,
            base_lists=lists.base,
            unreadable=tuple(join_ranges(unreadable, most=MAX_UNREADABLE)),
            change_maps=tuple(sorted(maps & empty_maps(exporter))),
            stored_bytes=counters.sent,
            live_bytes=index.live_bytes,
            data_bytes=index.data_chunks * self.chunk_size + (parent.data_bytes if parent else 0),
        )

        def keep(manifest: Manifest) -> None:
            if uses is not None:
                uses.add(index.live, stored)
            self._keep(manifest, disk, index, target, uses)

        return disk, result, keep

    def _works_of(self, positions: Positions) -> Iterable[Work]:
        size = self.exporter.size
        return plan_changes(to_ranges(positions.tolist(), size=size, chunk_size=self.chunk_size), self.chunk_size, size)

    def _keep(self, manifest: Manifest, disk: Disk, index: IndexWriter, copy: IndexFile, uses: PackUses | None) -> None:
        """After the commit: the local copy stands for the new point. Failing here costs only a new copy later."""
        if not self._ours:
            return
        try:
            index.keep()
            if copy.digest(size=disk.size, chunk_size=disk.chunk_size) == disk.digest:
                head = head_of(self.repository, manifest, disk, len(copy.packs))
                copy.commit(head)
                if uses is not None:
                    uses.save(copy.folder, head)
                if copy.folder != self.folder:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    self.folder.parent.mkdir(parents=True, exist_ok=True)
                    copy.folder.rename(self.folder)
        except (OSError, StaleCopy, FailbackError):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _parent_copy(self) -> IndexFile | None:
        if self.parent is None or self.parent_point is None:
            return None
        copy = open_copy(self.repository, self.parent_point.manifest, self.parent, self.folder)
        return self._files.enter_context(closing(copy))

    def _uses(self, copy: IndexFile | None) -> PackUses | None:
        """How the parent uses its packs. None when that would have to be asked for in a final export."""
        if copy is None or self.parent is None or self.parent_point is None:
            return PackUses()
        head = head_of(self.repository, self.parent_point.manifest, self.parent, len(copy.packs))
        uses = PackUses.load(copy.folder, head)
        if uses is None and not self.options.final:
            uses = PackUses.of(packs_of(self.repository, self.parent), copy.packs)
        return uses

    def _index(self, copy: IndexFile | None, packs: PackTable, put: Put) -> tuple[IndexWriter, IndexFile]:
        if copy is not None and self.parent is not None:
            spool = self.work / f"spool{self.number}"
            index = OverlayIndex(self.repository, self.parent, copy, put, spool, final=self.options.final)
            return index, copy
        # Made in the same file system as its final place, so that keeping it is a rename.
        target = IndexFile.create(self.work / f"copy{self.number}", self.positions, packs)
        self._files.enter_context(closing(target))
        return FullIndex(target, put, size=self.exporter.size, chunk_size=self.chunk_size), target

    def _known(self, packs: PackTable, damaged: DamagedPacks) -> KnownChunks:
        """What earlier attempts journaled; the disk before it was resized, and other points' disks of this number."""
        known = KnownChunks(self.repository, self.work, self.number, self.positions, packs, damaged)
        self._files.enter_context(closing(known))
        known.add_attempts(self.attempts, chunk_size=self.chunk_size, identity=self.exporter.identity)
        if self.resized is not None:
            known.add_base(self.resized)
        for point in self.options.bases:
            disk = disk_of(point, self.number)
            if disk is not None and disk.chunk_size == self.chunk_size:
                known.add_base(disk)
        return known

    def _works(self, copy: IndexFile | None) -> tuple[str, Iterable[Work]]:
        size = self.exporter.size
        if copy is not None and self.parent is not None and self.parent_point is not None:
            changed, why = changed_extents(self.source, self.parent, self.parent_point.manifest.sequence)
            if why:
                self.reason += f"; {why}"
            if changed is not None:
                again = [*changed, *self.parent.unreadable]
                return "changed blocks", plan_changes(sorted(again), self.chunk_size, size)
            extents = self.exporter.extents(0, size)
            return "incremental", plan(extents, self.chunk_size, self.positions, copy)
        data = sum(e.length for e in self.exporter.extents(0, size) if not e.zero)
        self.reason += f"; reads {forecast(data)}"
        return "full", plan(self.exporter.extents(0, size), self.chunk_size, self.positions, None)
