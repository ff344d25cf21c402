"""Disks of a recovery point become image files in a folder, or the content of block devices."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict, replace
from pathlib import Path

from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.disks_only import DisksOnly
from pipeline.errors import UsageError
from pipeline.exporters.base import Exporter
from pipeline.finding import Finding
from pipeline.mapping import DiskTarget
from pipeline.place import DiskRestored, Place, Ref, Stage
from pipeline.target import Abilities, Context, Intent
from pipeline.transfer.local import LocalDisk, checked, forecast_local, held_local, opened, parse_device, stage_local
from pipeline.transfer.stage import Stage as Held
from pipeline.transfer.stream_file import STREAM_FORMAT, forecast_stream, held_stream, stage_stream
from pipeline.wanted import Wanted

STAGE_FOLDER = ".failback"
"""Beside the files: what is known of each of them."""
FORMATS = ("raw", "qcow2", "vmdk", STREAM_FORMAT)


class FilesImporter(DisksOnly):
    """`failback import --to files`: every disk that has a device goes there, every other one to a file named
    `MACHINE-disk0.raw` in the folder `out`."""

    def __init__(self, context: Context) -> None:
        self.abilities = Abilities(machines=False)
        self._context = context

    def preflight(self, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
        """Raises UsageError for what was asked wrongly; what is wrong with a file shows when it is opened."""
        for disk in point.manifest.disks:
            self._local(point, disk, wanted)
        return []

    def prepare(self, point: Point, wanted: Wanted, marker: uuid.UUID) -> Place:
        return Place(marker, point.manifest.machine.name, "prepared")

    def stage(self, place: Place, point: Point, wanted: Wanted, *, instant: bool = False) -> Stage:
        manifest, context = point.manifest, self._context
        locals_ = {disk.number: self._local(point, disk, wanted) for disk in manifest.disks}
        with opened(context.seeds) as seeds:
            done = tuple(self._stage(point, disk, locals_[disk.number], seeds) for disk in manifest.disks)
        ref = {f"disk{number}": _to_text(local) for number, local in locals_.items()}
        return Stage(manifest.machine.name, manifest.sequence, _guard(ref), done, ref=ref)

    def _stage(self, point: Point, disk: Disk, local: LocalDisk, seeds: list[Exporter]) -> DiskRestored:
        repository, parallel, watch = self._context.repository, self._context.parallel, checked(self._context.control)
        if local.image_format == STREAM_FORMAT:
            return stage_stream(repository, point, disk, local, parallel=parallel, watch=watch)
        return stage_local(repository, point, disk, local, seeds=seeds, parallel=parallel, watch=watch)

    def forecast(self, place: Place | None, point: Point, wanted: Wanted) -> list[DiskRestored]:
        with opened(self._context.seeds) as seeds:
            return [
                self._forecast(point, disk, self._local(point, disk, wanted), seeds) for disk in point.manifest.disks
            ]

    def _forecast(self, point: Point, disk: Disk, local: LocalDisk, seeds: list[Exporter]) -> DiskRestored:
        if local.image_format == STREAM_FORMAT:
            return forecast_stream(self._context.repository, point, disk, local)
        return forecast_local(self._context.repository, point, disk, local, seeds=seeds)

    def check(self, stage: Stage) -> str:
        for text in stage.ref.values():
            local = _from_text(text)
            reason = held_stream(local) if local.image_format == STREAM_FORMAT else held_local(local)[1]
            if reason:
                return reason
        return "" if _guard(stage.ref) == stage.guard else "the disks hold something else by now"

    def _local(self, point: Point, disk: Disk, wanted: Wanted) -> LocalDisk:
        """Where a disk goes. Raises UsageError."""
        target, out = wanted.disks.get(disk.number, DiskTarget()), self._context.out
        if target.device:
            device = parse_device(target.device)
            expected = target.device.rpartition(":")[2]
            digest = hashlib.sha256(f"{device.path.resolve()}:{expected}".encode()).hexdigest()[:32]
            return replace(device, known=self._context.state / "stages" / digest)
        image_format = target.format or "raw"
        if image_format not in FORMATS:
            raise UsageError(
                f"{image_format} is no format that disks can be restored in", remedy=f"use {', '.join(FORMATS)}"
            )
        if out is None and any(other.device for other in wanted.disks.values()):
            raise UsageError(
                f"disk {disk.number} of {point.manifest.label} has no place to go",
                remedy="name a --device for it too, or a folder for it with --out",
            )
        if out is None:
            raise UsageError(
                "where should the disks go?", remedy="name a folder with --out, or a --device for each disk"
            )
        if image_format == STREAM_FORMAT and self._context.seeds:
            raise UsageError(
                f"a {STREAM_FORMAT} is made of the repository alone: --seed does not go with it",
                remedy="leave --seed away, or use another format",
            )
        extension = "vmdk" if image_format == STREAM_FORMAT else image_format
        name = f"{point.manifest.machine.name}-disk{disk.number}.{extension}"
        return LocalDisk(out / name, out / STAGE_FOLDER / name, image_format)


def _guard(ref: Ref) -> str:
    """What is known of the disks, in short."""
    states = [Held(_from_text(ref[key]).known).state for key in sorted(ref)]
    return hashlib.sha256(json.dumps([state and asdict(state) for state in states]).encode()).hexdigest()


def _to_text(local: LocalDisk) -> str:
    return json.dumps(asdict(local), default=str)


def _from_text(text: str) -> LocalDisk:
    values = json.loads(text)
    return LocalDisk(**values | {"path": Path(values["path"]), "known": Path(values["known"])})
