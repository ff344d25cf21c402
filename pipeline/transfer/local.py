"""Disks of a recovery point become files or devices of this host: what every importer does that writes locally."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import FailbackError, TargetMismatch, UsageError
from pipeline.exporters.base import Exporter
from pipeline.exporters.files import hole_extents
from pipeline.exporters.open import open_exporter
from pipeline.place import DiskRestored
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.target import Control
from pipeline.transfer.mark import is_ours, put_mark
from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.stage import Stage, StageState, explained, refuse_kept
from pipeline.writers.base import BlockWriter
from pipeline.writers.image import ImageWriter
from pipeline.writers.open import open_writer
from pipeline.writers.raw import open_raw

W = TypeVar("W", bound=BlockWriter)
_EMPTY_IMAGE = 1 << 20
"""Bytes that an image without data takes at most."""


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """Where one disk goes."""

    path: Path
    known: Path
    """Folder of what is known of it (pipeline.transfer.stage)."""
    image_format: str = "raw"
    expect_size: int | None = None
    expect_serial: str | None = None
    """A device is written only when one of these is said, and true."""

    @property
    def is_device(self) -> bool:
        return self.expect_size is not None or self.expect_serial is not None


def parse_device(text: str) -> LocalDisk:
    """`PATH:size=BYTES` or `PATH:serial=TEXT`; `known` is left empty. Raises UsageError."""
    path, colon, expected = text.rpartition(":")
    key, equals, value = expected.partition("=")
    if not colon or not equals or key not in ("size", "serial") or not value:
        raise UsageError(
            f"{text!r} does not say which disk is meant",
            remedy="write --device NUMBER=PATH:size=BYTES or NUMBER=PATH:serial=TEXT",
        )
    if key == "size" and not value.isdigit():
        raise UsageError(f"{value!r} is not a size in bytes", remedy="`lsblk -b` shows it")
    size = int(value) if key == "size" else None
    return LocalDisk(Path(path), Path(), expect_size=size, expect_serial=value if key == "serial" else None)


def checked(control: Control) -> Watch:
    """A Watch that also asks, as often as it is called, whether the work shall end."""

    def watch(counters: Counters) -> None:
        control.watch(counters)
        control.check()

    return watch


@contextmanager
def opened(seeds: Sequence[str]) -> Iterator[list[Exporter]]:
    """Surviving disks, open for reading."""
    exporters: list[Exporter] = []
    try:
        for spec in seeds:
            exporters.append(open_exporter(spec))
        yield exporters
    finally:
        for exporter in exporters:
            exporter.close()


def stage_local(
    repository: Repository,
    point: Point,
    disk: Disk,
    local: LocalDisk,
    *,
    seeds: Sequence[Exporter] = (),
    parallel: int = 6,
    watch: Watch = ignore,
) -> DiskRestored:
    """Make one file or device equal a disk of the point. Goes on after a kill; moves only what differs.

    Raises TargetMismatch for a file that failback did not write, TargetBusy while another restore works on it, and
    what `DiskRestore.run` raises. `seeds` are all that the user named; those that may fit are used.
    """
    begun = time.monotonic()
    with explained(local.known):
        stage, writer = _open_locked(point, disk, local)
        try:
            restore = DiskRestore(
                repository, point, disk, writer, stage, seeds=_fitting(seeds, disk), parallel=parallel, watch=watch
            )
            done = restore.run()
            writer.close()
            if isinstance(writer, ImageWriter) and stage.state is not None:
                # Formats update their headers when they are closed.
                stage.save(replace(stage.state, guard=writer.guard()))
        finally:
            writer.close()
            stage.unlock()
    return DiskRestored(
        disk.number,
        str(local.path),
        done.mode,
        done.reason,
        disk.digest,
        done.proof,
        done.counters,
        seconds=time.monotonic() - begun,
    )


def forecast_local(
    repository: Repository, point: Point, disk: Disk, local: LocalDisk, *, seeds: Sequence[Exporter] = ()
) -> DiskRestored:
    """What `stage_local` would move; nothing is written."""
    with explained(local.known):
        if not local.is_device:
            exists = refuse_foreign(local, Stage(local.known))
            if reason := _not_as_long(local, disk):
                mode = "hashed" if exists else "full"
                return _dry(disk, local, mode, reason, Counters(phase="restore"), disk.live_bytes)
        writer = _open_existing(disk, local, Stage(local.known).state if not local.is_device else None, dry=True)
        try:
            restore = DiskRestore(repository, point, disk, writer, Stage(local.known), seeds=_fitting(seeds, disk))
            mode, reason, to_move = restore.to_move()
        finally:
            writer.close()
    return _dry(disk, local, mode, reason, restore.counters, to_move)


def _dry(disk: Disk, local: LocalDisk, mode: str, reason: str, counters: Counters, to_move: int) -> DiskRestored:
    return DiskRestored(disk.number, str(local.path), mode, reason, disk.digest, "dry run", counters, to_move)


def held_local(local: LocalDisk) -> tuple[StageState | None, str]:
    """What the file is known to hold, and why that cannot be trusted (empty: it can). Changes nothing."""
    state = Stage(local.known).state
    if state is None:
        return None, "nothing is known of what the target holds"
    if state.state != "staged":
        return state, f"a restore to {state.machine}@{state.sequence} was cut short"
    if not local.path.exists():
        return state, f"{local.path} is gone"
    if not local.is_device and local.image_format == "raw" and local.path.stat().st_size != state.size:
        return state, f"{local.path} has another size"
    with explained(local.known):
        writer = _open(local, state.size, create=False)
        try:
            return state, "" if writer.guard() == state.guard else "somebody wrote to the target since it was staged"
        finally:
            writer.close()


def _fitting(seeds: Sequence[Exporter], disk: Disk) -> list[Exporter]:
    """The seeds that may hold chunks of this disk: one seed a disk in their order, or any of the same size."""
    return [seed for i, seed in enumerate(seeds) if i == disk.number or seed.size == disk.size]


def _open_locked(point: Point, disk: Disk, local: LocalDisk) -> tuple[Stage, BlockWriter]:
    stage = Stage(local.known)
    if local.is_device:
        # The writer holds a device for itself, and refuses one that somebody uses.
        return stage, _open(local, disk.size, create=False)
    refuse_foreign(local, stage)
    stage.lock(str(local.path))
    try:
        return stage, _open_file(point, disk, local, stage)
    except BaseException:
        stage.unlock()
        raise


def _open_file(point: Point, disk: Disk, local: LocalDisk, stage: Stage) -> BlockWriter:
    return made_or_opened(
        point,
        disk,
        local,
        stage,
        create=lambda: _open(local, disk.size, create=True),
        existing=lambda: _open_existing(disk, local, stage.state),
    )


def made_or_opened(
    point: Point,
    disk: Disk,
    local: LocalDisk,
    stage: Stage,
    *,
    create: Callable[[], W],
    existing: Callable[[], W],
) -> W:
    """The writer, of a file that is made when it is not there. The stage is locked."""
    exists = refuse_foreign(local, stage)
    if exists and stage.state is not None and stage.state.state == "creating":
        # Killed after the file was made and before anything was written to it.
        if not _holds_nothing(local):
            raise _foreign(local.path)
        local.path.unlink()
        exists = False
    if exists:
        return existing()
    stage.save(StageState.of("", point.manifest, disk, "creating", ""))
    try:
        writer = create()
    except FailbackError:
        stage.forget()
        raise
    try:
        put_mark(local.path, stage)
    except BaseException:
        writer.close()
        raise
    return writer


def _open_existing(disk: Disk, local: LocalDisk, known: StageState | None, *, dry: bool = False) -> BlockWriter:
    shorter = not dry and known is not None and not local.is_device and local.image_format == "raw"
    if shorter and known is not None and known.size == local.path.stat().st_size > disk.size:
        return open_raw(str(local.path), disk.size, shrink=True)
    return _open(local, disk.size, create=False)


def _open(local: LocalDisk, size: int, *, create: bool) -> BlockWriter:
    return open_writer(
        str(local.path),
        size=size,
        image_format=local.image_format,
        create=create,
        expect_size=local.expect_size,
        expect_serial=local.expect_serial,
    )


def refuse_foreign(local: LocalDisk, stage: Stage) -> bool:
    """Whether the file exists. Raises TargetMismatch when it does and is somebody else's."""
    exists = local.path.exists()
    if exists and not is_ours(local.path, stage):
        raise _foreign(local.path)
    if exists:
        refuse_kept(local.path, stage.state)
    return exists


def _foreign(path: Path) -> TargetMismatch:
    return TargetMismatch(
        f"{path} exists and was not written by failback",
        remedy="move it away (it can serve as --seed), or name another folder with --out",
    )


def _not_as_long(local: LocalDisk, disk: Disk) -> str:
    """Why a forecast need not open the file (which would make it as long as the disk); empty when it must."""
    if not local.path.exists():
        return "the target is new"
    if local.image_format == "raw" and local.path.stat().st_size != disk.size:
        return "the target has another size"
    return ""


def _holds_nothing(local: LocalDisk) -> bool:
    """Whether it is as it was made: a raw file without data, or an image with nothing but its tables."""
    if local.image_format != "raw":
        return local.path.stat().st_blocks * 512 <= _EMPTY_IMAGE
    with local.path.open("rb") as file:
        return all(e.zero for e in hole_extents(file.fileno(), 0, local.path.stat().st_size))
