"""Disks of a recovery point become image files in a folder, or the content of block devices."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from importers.files.mark import has_mark, put_mark
from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import FailbackError, TargetMismatch, UsageError
from pipeline.exporters.base import Exporter
from pipeline.exporters.files import hole_extents
from pipeline.exporters.open import open_exporter
from pipeline.progress import Counters, Watch
from pipeline.repository import Repository
from pipeline.target import DiskRestored, RestoreRequest
from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.stage import Stage, StageState, explained
from pipeline.writers.base import BlockWriter
from pipeline.writers.image import ImageWriter
from pipeline.writers.open import open_writer
from pipeline.writers.raw import open_raw

STAGE_FOLDER = ".failback"
"""Beside the files: what is known of each of them."""
_EMPTY_IMAGE = 1 << 20
"""Bytes that an image without data takes at most."""


class FilesImporter:
    """`failback import --to files`."""

    def restore(
        self, repository: Repository, point: Point, request: RestoreRequest, *, watch: Watch
    ) -> list[DiskRestored]:
        """Every disk that has a device goes there, every other one to a file named `MACHINE-disk0.raw` in `out`."""
        disks = point.manifest.disks
        unknown = sorted(set(request.devices) - {d.number for d in disks})
        if unknown:
            raise UsageError(
                f"{point.manifest.label} has no disk {unknown[0]}",
                remedy=f"it has {len(disks)} disk(s), numbered from 0",
            )
        if request.out is None and len(request.devices) < len(disks):
            raise UsageError(
                "where should the disks go?", remedy="name a folder with --out, or a --device for each disk"
            )
        seeds = [open_exporter(spec) for spec in request.seeds]
        try:
            with explained(request.state if request.out is None else request.out / STAGE_FOLDER):
                return [self._disk(repository, point, disk, request, self._seeds(seeds, disk), watch) for disk in disks]
        finally:
            for seed in seeds:
                seed.close()

    def _seeds(self, seeds: list[Exporter], disk: Disk) -> list[Exporter]:
        """The seeds that may hold chunks of this disk: one seed a disk in their order, or any of the same size."""
        return [s for i, s in enumerate(seeds) if i == disk.number or s.size == disk.size]

    def _disk(
        self,
        repository: Repository,
        point: Point,
        disk: Disk,
        request: RestoreRequest,
        seeds: list[Exporter],
        watch: Watch,
    ) -> DiskRestored:
        if disk.number in request.devices:
            path, stage, writer = self._open_device(disk, request)
        else:
            path, stage = self._find(point, disk, request)
            if request.dry_run and (reason := _not_as_long(path, disk, request)):
                counters = Counters(phase="restore")
                mode = "hashed" if path.exists() else "full"
                return DiskRestored(
                    disk.number, str(path), mode, reason, disk.digest, "dry run", counters, disk.live_bytes
                )
            if not request.dry_run:
                stage.lock(str(path))
            try:
                writer = self._open(path, stage, point, disk, request)
            except BaseException:
                stage.unlock()
                raise
        try:
            restore = DiskRestore(
                repository, point, disk, writer, stage, seeds=seeds, parallel=request.parallel, watch=watch
            )
            if request.dry_run:
                mode, reason, to_move = restore.to_move()
                return DiskRestored(
                    disk.number, str(path), mode, reason, disk.digest, "dry run", restore.counters, to_move
                )
            done = restore.run()
            writer.close()
            if isinstance(writer, ImageWriter) and stage.state is not None:
                # Formats update their headers when they are closed.
                stage.save(replace(stage.state, guard=writer.guard()))
        finally:
            writer.close()
            stage.unlock()
        return DiskRestored(disk.number, str(path), done.mode, done.reason, disk.digest, done.proof, done.counters)

    def _find(self, point: Point, disk: Disk, request: RestoreRequest) -> tuple[Path, Stage]:
        """The file for a disk, and what is known of it. Raises TargetMismatch for a file of somebody else."""
        assert request.out is not None
        name = f"{point.manifest.machine.name}-disk{disk.number}.{request.image_format}"
        path, stage = request.out / name, Stage(request.out / STAGE_FOLDER / name)
        if path.exists() and not _is_ours(path, stage):
            raise _foreign(path)
        return path, stage

    def _open(self, path: Path, stage: Stage, point: Point, disk: Disk, request: RestoreRequest) -> BlockWriter:
        """The writer, of a file that is made when it is not there. The stage is locked (but in a dry run)."""
        exists = path.exists()
        if exists and not _is_ours(path, stage):
            raise _foreign(path)
        if exists and stage.state is not None and stage.state.state == "creating" and not request.dry_run:
            # Killed after the file was made and before anything was written to it.
            if not _holds_nothing(path, request.image_format):
                raise _foreign(path)
            path.unlink()
            exists = False
        if exists:
            known = stage.state
            if request.image_format == "raw" and known and known.size == path.stat().st_size > disk.size:
                return open_raw(str(path), disk.size, shrink=True)
            return open_writer(str(path), size=disk.size, image_format=request.image_format, create=False)
        stage.save(StageState.of("", point.manifest, disk, "creating", ""))
        try:
            writer = open_writer(str(path), size=disk.size, image_format=request.image_format, create=True)
        except FailbackError:
            stage.forget()
            raise
        try:
            put_mark(path, stage)
        except BaseException:
            writer.close()
            raise
        return writer

    def _open_device(self, disk: Disk, request: RestoreRequest) -> tuple[Path, Stage, BlockWriter]:
        text = request.devices[disk.number]
        path, colon, expected = text.rpartition(":")
        key, equals, value = expected.partition("=")
        if not colon or not equals or key not in ("size", "serial") or not value:
            raise UsageError(
                f"{text!r} does not say which disk is meant",
                remedy="write --device NUMBER=PATH:size=BYTES or NUMBER=PATH:serial=TEXT",
            )
        if key == "size" and not value.isdigit():
            raise UsageError(f"{value!r} is not a size in bytes", remedy="`lsblk -b` shows it")
        writer = open_writer(
            path,
            size=disk.size,
            image_format="raw",
            create=False,
            expect_size=int(value) if key == "size" else None,
            expect_serial=value if key == "serial" else None,
        )
        digest = hashlib.sha256(f"{Path(path).resolve()}:{expected}".encode()).hexdigest()[:32]
        return Path(path), Stage(request.state / "stages" / digest), writer


def _is_ours(path: Path, stage: Stage) -> bool:
    """Whether the file may be overwritten. Of one that was being made when we were killed, its content will tell."""
    creating = stage.state is not None and stage.state.state == "creating"
    return stage.known and (creating or has_mark(path, stage))


def _foreign(path: Path) -> TargetMismatch:
    return TargetMismatch(
        f"{path} exists and was not written by failback",
        remedy="move it away (it can serve as --seed), or name another folder with --out",
    )


def _not_as_long(path: Path, disk: Disk, request: RestoreRequest) -> str:
    """Why a dry run need not open the file (which would make it as long as the disk); empty when it must."""
    if not path.exists():
        return "the target is new"
    if request.image_format == "raw" and path.stat().st_size != disk.size:
        return "the target has another size"
    return ""


def _holds_nothing(path: Path, image_format: str) -> bool:
    """Whether it is as it was made: a raw file without data, or an image with nothing but its tables."""
    if image_format != "raw":
        return path.stat().st_blocks * 512 <= _EMPTY_IMAGE
    with path.open("rb") as file:
        return all(e.zero for e in hole_extents(file.fileno(), 0, path.stat().st_size))
