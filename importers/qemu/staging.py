"""The staged disks of a place."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from importers.qemu.definition import Node
from importers.qemu.folder import Folder, Record, delete
from importers.qemu.guard import touched
from importers.qemu.hardware import StagedDisk
from importers.qemu.served import serve, served
from manifests.names import PointName
from pipeline.catalogue import Point, resolve
from pipeline.place import DiskRestored, Stage
from pipeline.progress import Counters
from pipeline.target import Context
from pipeline.transfer.local import checked, forecast_local, opened, stage_local
from pipeline.transfer.stage import Stage as Known
from pipeline.wanted import Wanted


def stage_disks(context: Context, folder: Folder, record: Record, point: Point, wanted: Wanted) -> Stage:
    """Make the disks equal the point. The place is locked and has no machine."""
    record = _announced(folder, record, point, wanted)
    with opened(context.seeds) as seeds:
        done = tuple(
            stage_local(
                context.repository,
                point,
                disk,
                folder.local(record, disk.number),
                seeds=seeds,
                parallel=context.parallel,
                watch=checked(context.control),
            )
            for disk in point.manifest.disks
        )
    stage = held(folder, record)
    assert stage is not None
    return Stage(stage.machine, stage.sequence, stage.guard, done, ref=stage.ref)


def serve_disks(context: Context, folder: Folder, record: Record, point: Point, wanted: Wanted) -> Stage:
    """The disks can be used at once, and are filled meanwhile by servers that outlive us."""
    record = _announced(folder, record, point, wanted)
    disks = point.manifest.disks
    serve(context, folder, record, [disk.number for disk in disks])
    done = tuple(
        DiskRestored(
            disk.number,
            str(folder.local(record, disk.number).path),
            "instant",
            "it is served from the repository and filled meanwhile",
            disk.digest,
            "every chunk is checked when it is read; the disk is proved when it is filled",
            Counters(phase="serve", disk=f"disk {disk.number}", total=disk.size),
        )
        for disk in disks
    )
    return replace(incomplete(folder, record), disks=done)


def complete_disks(context: Context, folder: Folder, record: Record) -> None:
    """What is not filled yet of a place whose servers have ended. The machine stays."""
    point = resolve(context.repository, PointName(record.machine, record.sequence))
    for disk in point.manifest.disks:
        stage_local(
            context.repository,
            point,
            disk,
            folder.local(record, disk.number),
            parallel=context.parallel,
            watch=checked(context.control),
        )


def incomplete(folder: Folder, record: Record) -> Stage:
    """A stage that is still being filled."""
    return Stage(record.machine, record.sequence, "", complete=False, ref=_ref(folder))


def _ref(folder: Folder) -> dict[str, str]:
    return {"marker": str(folder.marker), "folder": str(folder.path)}


def forecast_disks(
    context: Context, folder: Folder, record: Record | None, point: Point, wanted: Wanted
) -> list[DiskRestored]:
    """What `stage_disks` would move."""
    record = _with_disks(record or Record(marker=folder.marker, machine=""), point, wanted)
    with opened(context.seeds) as seeds:
        return [
            forecast_local(context.repository, point, disk, folder.local(record, disk.number), seeds=seeds)
            for disk in point.manifest.disks
        ]


def _announced(folder: Folder, record: Record, point: Point, wanted: Wanted) -> Record:
    """Note what is about to be staged; disks that the machine has no more go away."""
    new = _with_disks(record, point, wanted)
    folder.write(new)
    for number, node in record.nodes.items():
        if new.nodes.get(number) != node and number not in record.adopted:
            delete(folder.path / node.file)
            delete(folder.stage / "known" / f"disk{number}")
    (folder.stage / "known").mkdir(parents=True, exist_ok=True, mode=0o700)
    return new


def _with_disks(record: Record, point: Point, wanted: Wanted) -> Record:
    manifest = point.manifest
    return record.model_copy(
        update={
            "machine": manifest.machine.name,
            "sequence": manifest.sequence,
            "disks": tuple(StagedDisk.of(disk) for disk in manifest.disks),
            "nodes": {
                disk.number: record.adopted.get(disk.number) or _node(disk.number, wanted) for disk in manifest.disks
            },
        }
    )


def _node(number: int, wanted: Wanted) -> Node:
    target = wanted.disks.get(number)
    if target is not None and target.format == "qcow2":
        return Node(file=f"stage/disk{number}.qcow2", format="qcow2")
    return Node(file=f"stage/disk{number}.raw")


def held(folder: Folder, record: Record) -> Stage | None:
    """The stage as it was proved; None when one is not whole. What happened to the files since is for `broken`."""
    if not record.disks:
        return None
    guards = []
    for disk in record.disks:
        state = Known(folder.local(record, disk.number).known).state
        if state is None or state.state != "staged" or state.digest != disk.digest:
            return None
        guards.append(f"{state.digest} {state.guard}")
    return Stage(
        record.machine,
        record.sequence,
        f"{record.merging}:{hashlib.sha256(chr(10).join(guards).encode()).hexdigest()}",
        ref=_ref(folder),
    )


def broken(folder: Folder, record: Record, stage: Stage) -> str:
    """Why the disks cannot be trusted to be what `stage` says; empty: they can. Reads no data."""
    if not stage.complete and served(folder, record):
        return ""
    if record.merging:
        return "what the machine wrote was merged into the disks"
    now = held(folder, record)
    if now is None:
        return "the disks are not whole: a restore to them was cut short"
    if now.guard != stage.guard:
        return f"the disks hold {now.machine}@{now.sequence} by now, or were staged again"
    for disk in record.disks:
        local = folder.local(record, disk.number)
        if reason := touched(local):
            return reason
    return ""
