"""Export: disks of a machine become one recovery point in the repository."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from manifests.machine import Machine
from manifests.manifest import Manifest, Parent
from pipeline.catalogue import Point, notice, now
from pipeline.errors import FailbackError, StoreUnavailable, UsageError
from pipeline.laps import Laps, Steps
from pipeline.progress import Report, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.commit import commit
from pipeline.transfer.disk_export import DiskExport, DiskResult, chunk_size_of
from pipeline.transfer.export_request import DiskSource, ExportOptions
from pipeline.transfer.index_copy import copy_folder, known_sequence
from pipeline.transfer.parent import check_roots, disk_of, newest_parent
from pipeline.transfer.session import Attempt, Session


@dataclass(slots=True)
class ExportResult:
    """The committed point (None after a dry run), and what was done for it."""

    manifest: Manifest | None
    sequence: int
    disks: list[DiskResult]
    report: Report = field(default_factory=Report)
    resumed: bool = False
    steps: Steps = field(default_factory=dict)
    """Where the time went: begin, plan, read (and compare, hash, send, side by side), index, commit, keep; of several
    disks together."""


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
    for base in options.bases:
        if base.generation != repository.sealing.generation:
            raise UsageError(
                f"{base.manifest.label} is sealed with older keys than this export would be", remedy="leave it away"
            )
    started, laps = now(), Laps()
    known = min(
        (known_sequence(copy_folder(options.state, repository, machine.name, i)) for i in range(len(sources))),
        default=0,
    )
    parent, sequence = newest_parent(repository, machine.name, known, wanted=not options.full)
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
                session.check_free()
                check_roots(repository, [*([parent] if parent else []), *options.bases])
            laps.lap("begin")
            disks, keepers = [], []
            for number, source in enumerate(sources):
                export = DiskExport(
                    repository, machine.name, number, source, options, parent, session, attempts, work, tell, laps
                )
                stack.callback(export.close)
                disk, outcome_of_disk, keep = export.run_until_copy_is_good(watch)
                result.disks.append(outcome_of_disk)
                result.report.notes.append(f"disk {number}: {outcome_of_disk.mode}, {outcome_of_disk.reason}")
                result.report.warnings += outcome_of_disk.warnings
                disks.append(disk)
                keepers.append(keep)
            for source in sources:
                source.exporter.check_unchanged()
            if session is None:
                outcome = "dry run"
                return result
            original = options.original
            manifest = Manifest(
                machine=machine,
                sequence=sequence,
                parent=Parent(sequence=parent.manifest.sequence, manifest=parent.object_hash) if parent else None,
                bases=tuple(p.manifest.label for p in options.bases),
                started=original.started if original else started,
                time=original.time if original else now(),
                tool=f"failback {version('failback')}",
                run=session.run,
                consistency=options.consistency,
                final=original.final if original else options.final,
                copied_from=original.copied_from if original else None,
                tags=dict(options.tags),
                disks=tuple(disks),
            )
            commit(repository, manifest)
            notice(repository, machine.name, [sequence], ())
            outcome = "committed"
            result.manifest = manifest
            laps.lap("commit")
            for keep in keepers:
                keep(manifest)
            laps.lap("keep")
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
            result.steps = laps.steps


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
            "chunk_size": chunk_size_of(repository, options, disk_of(parent, i)),
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
