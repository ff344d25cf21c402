"""Disks of a recovery point become image files in a folder, or the content of block devices."""

from __future__ import annotations

import hashlib
from pathlib import Path

from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import TargetMismatch, UsageError
from pipeline.exporters.base import Exporter
from pipeline.exporters.open import open_exporter
from pipeline.progress import Counters, Watch
from pipeline.repository import Repository
from pipeline.target import DiskRestored, RestoreRequest
from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.stage import Stage
from pipeline.writers.base import BlockWriter
from pipeline.writers.open import open_writer

STAGE_FOLDER = ".failback"
"""Beside the files: what is known of each of them."""


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
        path, stage, writer = self._open(point, disk, request)
        if writer is None:
            to_move = disk.live_bytes
            return DiskRestored(
                disk.number,
                str(path),
                "full",
                "the target is new",
                disk.digest,
                "dry run",
                Counters(phase="restore"),
                to_move,
            )
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
        finally:
            writer.close()
        return DiskRestored(disk.number, str(path), done.mode, done.reason, disk.digest, done.proof, done.counters)

    def _open(self, point: Point, disk: Disk, request: RestoreRequest) -> tuple[Path, Stage, BlockWriter | None]:
        """(path, stage, writer); no writer when a dry run would have to create the file."""
        if disk.number in request.devices:
            return self._open_device(disk, request)
        assert request.out is not None
        name = f"{point.manifest.machine.name}-disk{disk.number}.{request.image_format}"
        path = request.out / name
        stage = Stage(request.out / STAGE_FOLDER / name)
        exists = path.exists()
        if exists and stage.state is None:
            raise TargetMismatch(
                f"{path} exists and was not written by failback",
                remedy="move it away (it can serve as --seed), or name another folder with --out",
            )
        if request.dry_run and not exists:
            return path, stage, None
        request.out.mkdir(parents=True, exist_ok=True)
        writer = open_writer(str(path), size=disk.size, image_format=request.image_format, create=not exists)
        return path, stage, writer

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
