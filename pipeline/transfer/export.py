"""Export: disks of a machine become one recovery point in the repository."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blake3 import blake3

from manifests.entry import PackTable
from manifests.envelope import Kind
from manifests.machine import Machine
from manifests.manifest import MAX_UNREADABLE, Consistency, Disk, Manifest, Parent
from manifests.names import manifest_key, pack_key
from manifests.pack import PackBuilder
from manifests.packlist import add_up
from manifests.ranges import join_ranges
from manifests.repository import check_chunk_size
from pipeline.catalogue import Point, forgotten, load, now, sequences
from pipeline.errors import (
    AlreadyExists,
    CorruptObject,
    FailbackError,
    NotFound,
    SessionFenced,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from pipeline.exporters.base import Exporter
from pipeline.progress import Counters, Report, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.index_copy import copy_folder, fill, head_of, known_sequence, open_copy
from pipeline.transfer.index_file import IndexFile, StaleCopy
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.index_writer import FullIndex, IndexWriter, OverlayIndex, read_list
from pipeline.transfer.level import LevelControl
from pipeline.transfer.scan import TRUSTED, Scanned, Scanner, Work, plan, plan_changes
from pipeline.transfer.send import Sender
from pipeline.transfer.session import Attempt, Session, read_journal

CHANGE_MAP_PREFIX = "failback"
"""Change maps are used by themselves only when their name begins so: whoever names one so promises that a name is
never used twice. A map that was cleared and filled again would hide changes, and nothing could tell."""

_ASSUMED_RATE = 100e6
"""Bytes a second: what the forecast of a full export assumes when it knows nothing better."""


@dataclass(frozen=True, slots=True)
class ChangedBlocks:
    """What the caller knows of a disk's changes: (offset, length) in bytes, all that changed since point `since`."""

    since: int
    extents: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class DiskSource:
    """One disk to export."""

    exporter: Exporter
    name: str
    source_format: str = "raw"
    bus: str = ""
    boot: bool = False
    serial: str = ""
    changes: ChangedBlocks | None = None
    use_change_maps: bool = True


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How to export. `memory` in bytes bounds what is on its way; `workers` 0 means by the number of CPUs."""

    state: Path
    full: bool = False
    final: bool = False
    dry_run: bool = False
    keep_going: bool = False
    consistency: Consistency = "crash"
    bases: tuple[Point, ...] = ()
    chunk_size: int | None = None
    memory: int = 256 << 20
    workers: int = 0
    uploads: int = 16
    level: int = 1
    top_level: int = 6


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


@dataclass(slots=True)
class ExportResult:
    """The committed point (None after a dry run), and what was done for it."""

    manifest: Manifest | None
    sequence: int
    disks: list[DiskResult]
    report: Report = field(default_factory=Report)
    resumed: bool = False


def export_machine(
    repository: Repository,
    machine: Machine,
    sources: list[DiskSource],
    options: ExportOptions,
    *,
    watch: Watch = ignore,
    tell: Callable[[str], object] = lambda _text: None,
) -> ExportResult:
    """Export all disks and commit one recovery point. `tell` hears how each disk is exported, before it is read.

    Raises SessionHeld, SessionFenced, Unreadable, SourceChanged, StoreError; nothing is committed then, and the same
    call goes on where this one ended.
    """
    if not sources:
        raise UsageError(f"{machine.name} has no disk to export", remedy="name at least one with --disk")
    started = now()
    known = min(
        (known_sequence(copy_folder(options.state, repository, machine.name, i)) for i in range(len(sources))),
        default=0,
    )
    parent, sequence = _parent(repository, machine.name, known, wanted=not options.full)
    result = ExportResult(None, sequence, [])
    with ExitStack() as stack:
        work = _work_folder(options.state / repository.document.id / "work")
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        session: Session | None = None
        attempts: list[Attempt] = []
        if not options.dry_run:
            session, attempts = _begin(repository, machine.name, sequence, parent, sources, options)
            result.resumed = bool(attempts)
        outcome = "failed"
        try:
            if session is not None:
                _check_roots(repository, [*([parent] if parent else []), *options.bases])
            disks, keepers = [], []
            for number, source in enumerate(sources):
                export = _DiskExport(
                    repository, machine.name, number, source, options, parent, session, attempts, work, tell
                )
                disk, outcome_of_disk, keep = export.run_until_copy_is_good(watch)
                result.disks.append(outcome_of_disk)
                result.report.notes.append(f"disk {number}: {outcome_of_disk.mode}, {outcome_of_disk.reason}")
                disks.append(disk)
                keepers.append(keep)
            for source in sources:
                source.exporter.check_unchanged()
            if session is None:
                outcome = "dry run"
                return result
            manifest = Manifest(
                machine=machine,
                sequence=sequence,
                parent=Parent(sequence=parent.manifest.sequence, manifest=parent.object_hash) if parent else None,
                bases=tuple(p.manifest.label for p in options.bases),
                started=started,
                time=now(),
                tool=f"failback {version('failback')}",
                run=session.run,
                consistency=options.consistency,
                final=options.final,
                disks=tuple(disks),
            )
            commit(repository, manifest)
            outcome = "committed"
            result.manifest = manifest
            for keep in keepers:
                keep(manifest)
            return result
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        except OSError as error:
            # Disks and stores have errors of their own: this one is of the folder that remembers.
            raise _no_state(options.state, error) from error
        except StoreUnavailable:
            # One more write to a store that does not answer would only make the user wait again.
            if session is not None:
                session.abandon()
                session = None
            raise
        finally:
            if session is not None:
                session.end(outcome)


def _work_folder(parent: Path) -> Path:
    """A new folder for this process; those of processes that are gone are removed."""
    folder = parent / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        if parent.exists():
            for old in parent.iterdir():
                if not Path(f"/proc/{old.name.partition('-')[0]}").exists():
                    shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise _no_state(parent, error) from error
    return folder


def _no_state(folder: Path, error: OSError) -> FailbackError:
    return FailbackError(
        f"the state folder {folder} can't be used: {error.strerror or error}",
        remedy="make room there, or name another folder with FAILBACK_STATE_DIR",
    )


def _check_roots(repository: Repository, points: Iterable[Point]) -> None:
    """After the session is announced: what it builds on must still be there, or a collector may not have seen us."""
    for point in points:
        manifest = point.manifest
        gone = manifest.sequence in forgotten(repository, manifest.machine.name, after=manifest.sequence - 1)
        if gone or repository.store.head(manifest_key(manifest.machine.name, manifest.sequence)) is None:
            raise SessionFenced(
                f"{manifest.label} was forgotten while this export began",
                remedy="nothing was committed; run the same command again",
            )


def commit(repository: Repository, manifest: Manifest) -> None:
    """Create the manifest's key. Raises SessionFenced when somebody else's record is there."""
    key = manifest_key(manifest.machine.name, manifest.sequence)
    data = manifest.encode(repository.id)
    try:
        if not repository.conditional_put and repository.store.head(key) is not None:
            raise AlreadyExists(key)
        repository.store.put(key, data, create=repository.conditional_put)
        if repository.conditional_put:
            return
    except AlreadyExists:
        pass
    try:
        there = bytes(repository.store.get(key))
    except NotFound:
        there = b""
    if there != data:
        raise SessionFenced(
            f"{manifest.label} was taken by another writer or fenced while this export ran",
            remedy="nothing was committed; run the same command again",
        )


def _parent(repository: Repository, machine: str, known: int, *, wanted: bool) -> tuple[Point | None, int]:
    """The newest usable point (if wanted: a damaged one must not stand in the way of a full export), and the next
    free sequence."""
    after = max(known - 1, 0)
    taken = sequences(repository, machine, after=after)
    gone = forgotten(repository, machine, after=after)
    following = max(taken, default=0) + 1
    for sequence in reversed(taken) if wanted else ():
        if sequence in gone:
            continue
        try:
            point = load(repository, machine, sequence)
        except CorruptObject as error:
            raise CorruptObject(
                error.message, remedy=f"no increment can build on it: export {machine} with --full to begin anew"
            ) from error
        if point is not None:
            return point, following
    if after and (wanted or not taken):
        return _parent(repository, machine, 0, wanted=wanted)
    return None, following


def _begin(
    repository: Repository,
    machine: str,
    sequence: int,
    parent: Point | None,
    sources: list[DiskSource],
    options: ExportOptions,
) -> tuple[Session, list[Attempt]]:
    disks: list[dict[str, Any]] = [
        {
            "number": i,
            "name": s.name,
            "size": s.exporter.size,
            "chunk_size": _chunk_size(repository, options, _disk_of(parent, i)),
            "identity": s.exporter.identity,
        }
        for i, s in enumerate(sources)
    ]
    return Session.begin(
        repository,
        machine,
        sequence,
        parent={"sequence": parent.manifest.sequence, "manifest": parent.object_hash} if parent else None,
        bases=[{"point": p.manifest.label, "manifest": p.object_hash} for p in options.bases],
        disks=disks,
        tool=f"failback {version('failback')}",
    )


def _disk_of(point: Point | None, number: int) -> Disk | None:
    return next((d for d in point.manifest.disks if d.number == number), None) if point else None


def _chunk_size(repository: Repository, options: ExportOptions, earlier: Disk | None) -> int:
    return check_chunk_size(options.chunk_size or (earlier.chunk_size if earlier else repository.document.chunk_size))


class _DiskExport:
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
        self.folder = copy_folder(options.state, repository, machine, number)
        self.parent_point = parent
        self.parent: Disk | None = None
        self.resized: Disk | None = None
        self.reason = "there is no earlier point" if not options.full else "asked for with --full"
        if parent is not None:
            self._choose_parent(parent)
        earlier = self.parent or self.resized
        self.lineage = earlier.lineage if earlier else uuid.uuid4().hex
        self.chunk_size = _chunk_size(repository, options, earlier)
        self.positions = -(-self.exporter.size // self.chunk_size)

    def _choose_parent(self, parent: Point) -> None:
        disk = next((d for d in parent.manifest.disks if d.number == self.number), None)
        label = parent.manifest.label
        if disk is None:
            self.reason = f"{label} has no disk {self.number}"
        elif self.options.chunk_size and self.options.chunk_size != disk.chunk_size:
            self.reason = f"{label} has chunks of {disk.chunk_size} bytes"
        elif disk.size != self.exporter.size:
            self.reason = f"the disk had {disk.size} bytes in {label}; chunks it still has are not sent again"
            self.resized = disk
        else:
            self.parent = disk
            self.reason = f"compared with {label}"

    def run_until_copy_is_good(self, watch: Watch) -> tuple[Disk, DiskResult, Callable[[Manifest], None]]:
        """Run; when the local copy of the parent's index turns out damaged, make it anew and run again."""
        try:
            return self._run(watch)
        except StaleCopy:
            shutil.rmtree(self.folder, ignore_errors=True)
            return self._run(watch)

    def _run(self, watch: Watch) -> tuple[Disk, DiskResult, Callable[[Manifest], None]]:
        options, exporter = self.options, self.exporter
        counters = Counters(phase="export", disk=self.source.name, total=exporter.size)
        copy = self._parent_copy()
        packs = copy.packs if copy else PackTable()
        metadata = [0]
        workers = options.workers or (os.cpu_count() or 1) + 1
        limit = max(options.memory // 8, 16 << 20)
        with (
            ThreadPoolExecutor(max(1, min(options.uploads, limit >> 23)), "upload") as uploads,
            ThreadPoolExecutor(workers, "scan") as scanners,
        ):
            put = self._putter(uploads, metadata)
            index, target = self._index(copy, packs, put)
            known: dict[int, int] = {}
            journaled = self._journaled(packs, known)
            bases = self._bases(packs, known)
            sender = Sender(
                uploads,
                index,
                packs,
                counters,
                lineage=bytes.fromhex(self.lineage),
                chunk_size=self.chunk_size,
                limit=limit,
                journal=self._journal(metadata),
                store=self._pretend_pack if options.dry_run else self._store_pack,
            )
            scanner = Scanner(
                exporter,
                self.chunk_size,
                parent=copy,
                journaled=journaled,
                bases=bases,
                sent=sender.sent,
                keep_going=options.keep_going,
                level=options.level,
            )
            level = LevelControl(options.level, options.top_level)
            empty_maps = self._empty_maps()
            mode, works = self._works(copy)
            self.tell(f"disk {self.number}: {mode}, {self.reason}")
            unreadable: list[tuple[int, int]] = []
            try:
                for scanned, end in self._scan(scanners, scanner, works, workers):
                    sender.add(scanned)
                    unreadable += scanned.unreadable
                    if len(unreadable) > 2 * MAX_UNREADABLE:
                        unreadable = join_ranges(unreadable, most=MAX_UNREADABLE)
                    counters.done = max(counters.done, end)
                    scanner.level = level.after(counters.sent)
                    watch(counters)
                sender.flush()
            except BaseException as error:
                scanners.shutdown(wait=False, cancel_futures=True)
                uploads.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, StoreError):
                    with suppress(FailbackError):
                        sender.give_up()
                raise
            counters.done = counters.total
            watch(counters)
            found, digest = index.finish()
            lists = index.pack_lists(known | sender.stored)
        for file in [journaled, *bases]:
            if file is not None:
                file.close()
        result = DiskResult(
            self.number, self.source.name, exporter.size, mode, self.reason, counters, unreadable, metadata[0]
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
            change_maps=tuple(sorted(empty_maps & self._empty_maps())),
            stored_bytes=counters.sent,
            live_bytes=index.live_bytes,
            data_bytes=index.data_chunks * self.chunk_size + (parent.data_bytes if parent else 0),
        )
        return disk, result, lambda manifest: self._keep(manifest, disk, index, target)

    def _keep(self, manifest: Manifest, disk: Disk, index: IndexWriter, copy: IndexFile) -> None:
        """After the commit: the local copy stands for the new point. Failing here costs only a new copy later."""
        try:
            index.keep()
            if copy.digest(size=disk.size, chunk_size=disk.chunk_size) == disk.digest:
                copy.commit(head_of(self.repository, manifest, disk, len(copy.packs)))
                if copy.folder != self.folder:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    self.folder.parent.mkdir(parents=True, exist_ok=True)
                    copy.folder.rename(self.folder)
        except (OSError, StaleCopy, FailbackError):
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            copy.close()

    def _parent_copy(self) -> IndexFile | None:
        if self.parent is None or self.parent_point is None:
            return None
        return open_copy(self.repository, self.parent_point.manifest, self.parent, self.folder)

    def _index(
        self, copy: IndexFile | None, packs: PackTable, put: Callable[[Kind, bytes], Future[tuple[bytes, int]]]
    ) -> tuple[IndexWriter, IndexFile]:
        if copy is not None and self.parent is not None:
            spool = self.work / f"spool{self.number}"
            index = OverlayIndex(self.repository, self.parent, copy, put, spool, final=self.options.final)
            return index, copy
        # Made in the same file system as its final place, so that keeping it is a rename.
        target = IndexFile.create(self.work / f"copy{self.number}", self.positions, packs)
        return FullIndex(target, put, size=self.exporter.size, chunk_size=self.chunk_size), target

    def _putter(
        self, pool: ThreadPoolExecutor, metadata: list[int]
    ) -> Callable[[Kind, bytes], Future[tuple[bytes, int]]]:
        def store(kind: Kind, plain: bytes) -> tuple[bytes, int]:
            object_id, stored = self.repository.put_page_object(kind, plain)
            metadata[0] += stored
            return object_id, stored

        def pretend(kind: Kind, plain: bytes) -> tuple[bytes, int]:
            return blake3(bytes([kind]) + plain).digest(), len(plain)

        return lambda kind, plain: pool.submit(pretend if self.options.dry_run else store, kind, plain)

    def _store_pack(self, builder: PackBuilder) -> tuple[bytes, int]:
        pack, data = builder.seal(self.repository.id)
        self.repository.store.put(pack_key(pack), data)
        return pack, len(data)

    def _pretend_pack(self, builder: PackBuilder) -> tuple[bytes, int]:
        pack, data = builder.seal(self.repository.id)
        return pack, len(data)

    def _journal(self, metadata: list[int]) -> Callable[..., int] | None:
        session = self.session
        if session is None:
            return None

        def write(positions: Any, rows: Any, packs: PackTable, stored: dict[int, int]) -> int:
            written = session.journal(self.number, positions, rows, packs, stored)
            metadata[0] += written
            return written

        return write

    def _journaled(self, packs: PackTable, known: dict[int, int]) -> IndexFile | None:
        """What earlier attempts at this sequence have stored, by position; `known` gets their packs' stored lengths."""
        file: IndexFile | None = None
        for attempt in self.attempts:
            disk = next((d for d in attempt.document["disks"] if d["number"] == self.number), None)
            if disk is None or not attempt.journals or disk.get("chunk_size") != self.chunk_size:
                continue  # positions of other chunks mean other bytes
            same = disk["identity"] is not None and disk["identity"] == self.exporter.identity
            for key in attempt.journals:
                try:
                    journal = read_journal(self.repository, key, packs)
                except (CorruptObject, NotFound):
                    continue  # what it would have spared is sent again
                positions, rows = journal.positions, journal.rows
                keep = positions < self.positions
                if journal.disk != self.number or not keep.any():
                    continue
                known.update(journal.stored)
                if file is None:
                    file = IndexFile.create(self.work / f"journaled{self.number}", self.positions, packs)
                rows["flags"] |= TRUSTED if same else 0
                file.put_rows(positions[keep], rows[keep])
        return file

    def _bases(self, packs: PackTable, known: dict[int, int]) -> list[IndexFile]:
        """Other points (and this disk before it was resized) whose chunks are looked at by position.

        `known` gets their packs' stored lengths.
        """
        disks: list[tuple[str, Disk]] = []
        if self.resized is not None:
            disks.append(("resized", self.resized))
        for point in self.options.bases:
            disk = next((d for d in point.manifest.disks if d.number == self.number), None)
            if disk is not None and disk.chunk_size == self.chunk_size:
                disks.append((point.manifest.label, disk))
        files = []
        for i, (_label, disk) in enumerate(disks):
            file = IndexFile.create(self.work / f"base{self.number}.{i}", disk.positions, packs)
            for block in IndexReader(self.repository, disk, packs).windows():
                fill(file, block)
            listed = add_up(read_list(self.repository, raw) for raw in disk.packs)
            known.update((packs.ordinal(pack), use.stored) for pack, use in listed.items())
            files.append(file)
        return files

    def _works(self, copy: IndexFile | None) -> tuple[str, Iterable[Work]]:
        size = self.exporter.size
        if copy is not None and self.parent is not None:
            changed = self._changed_extents()
            if changed is not None:
                again = [*changed, *self.parent.unreadable]
                return "changed blocks", plan_changes(sorted(again), self.chunk_size, size)
            extents = self.exporter.extents(0, size)
            return "incremental", plan(extents, self.chunk_size, self.positions, copy)
        data = sum(e.length for e in self.exporter.extents(0, size) if not e.zero)
        self.reason += f"; reads {forecast(data)}"
        return "full", plan(self.exporter.extents(0, size), self.chunk_size, self.positions, None)

    def _changed_extents(self) -> list[tuple[int, int]] | None:
        """What changed since the parent, when that is known for sure."""
        assert self.parent is not None
        assert self.parent_point is not None
        sequence = self.parent_point.manifest.sequence
        changes = self.source.changes
        if changes is not None:
            if changes.since != sequence:
                self.reason += f"; the given changes begin at point {changes.since}, so every block is compared"
                return None
            self.reason += "; reading only the given changes"
            return list(changes.extents)
        if self.source.use_change_maps:
            offered = self.exporter.change_maps()
            for name in self.parent.change_maps:
                if name in offered:
                    self.reason += f"; reading only what bitmap {name} marks"
                    return list(self.exporter.changed_extents(name))
        return None

    def _empty_maps(self) -> set[str]:
        """Change maps of ours with nothing in them. Empty before and after the disk was read, a map begins here."""
        return {
            name
            for name in self.exporter.change_maps()
            if name.startswith(CHANGE_MAP_PREFIX) and next(iter(self.exporter.changed_extents(name)), None) is None
        }

    def _scan(
        self, pool: ThreadPoolExecutor, scanner: Scanner, works: Iterable[Work], workers: int
    ) -> Iterator[tuple[Scanned, int]]:
        """Results in order, and up to which byte they go; a few Works ahead of what the caller takes."""
        ahead: deque[tuple[Future[Scanned], int]] = deque()
        size = self.chunk_size
        for work in works:
            ends = [first + count for first, count in (*work.runs, *work.zeros)]
            end = min(max(ends) * size, self.exporter.size)
            ahead.append((pool.submit(scanner, work), end))
            if len(ahead) > workers + 1:
                future, end = ahead.popleft()
                yield future.result(), end
        while ahead:
            future, end = ahead.popleft()
            yield future.result(), end


def forecast(data: int, rate: float = _ASSUMED_RATE) -> str:
    """`data` bytes and how long they take at `rate` bytes a second, for people."""
    return f"{_tenths(data / 2**30)} GiB, {_tenths(data / rate / 3600)} h at {rate / 1e6:.0f} MB/s"


def _tenths(number: float) -> str:
    return f"{number:.1f}" if number >= 0.1 else "under 0.1"
