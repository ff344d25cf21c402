"""`failback show`: everything a recovery point says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.units import count, moment, size

if TYPE_CHECKING:
    from pipeline.catalogue import Point
    from pipeline.repository import Repository


@command
def show(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
    locks: Annotated[bool, typer.Option("--locks", help="Also until when the store locks what it needs.")] = False,
) -> Ending:
    """Show a recovery point: the machine's hardware, its disks, where it came from."""
    from manifests.names import parse_point
    from pipeline.catalogue import resolve

    repository = invocation.open_repository()
    found = resolve(repository, parse_point(point))
    manifest, machine = found.manifest, found.manifest.machine
    say = invocation.output.say
    parent = f"{machine.name}@{manifest.parent.sequence}" if manifest.parent else "none, complete by itself"
    say(
        f"point        {manifest.label}{' (final)' if manifest.final else ''}",
        f"time         {moment(manifest.time)}, begun {moment(manifest.started)}",
        f"consistency  {manifest.consistency}",
        f"parent       {parent}",
        f"written by   {manifest.tool}, run {manifest.run}",
    )
    if manifest.bases:
        say(f"bases        {', '.join(manifest.bases)}")
    if manifest.set:
        say(f"set          {manifest.set}")
    say(
        f"machine      {machine.name}{f' on {machine.platform}' if machine.platform else ''}",
        f"firmware     {machine.firmware}{', secure boot' if machine.secure_boot else ''}",
        f"cpus         {machine.cpus}",
        f"memory       {size(machine.memory_bytes)}",
    )
    for number, nic in enumerate(machine.nics):
        parts = (nic.mac, nic.network, nic.model, *nic.addresses)
        say(f"nic {number:<8} {', '.join(part for part in parts if part) or 'left to the target'}")
    for disk in manifest.disks:
        marks = [disk.bus, "boot" if disk.boot else "", f"serial {disk.serial}" if disk.serial else ""]
        say(
            f"disk {disk.number:<7} {disk.name} ({disk.source_format}), {size(disk.size)}",
            *([f"             {', '.join(mark for mark in marks if mark)}"] if any(marks) else []),
            f"             {size(disk.data_bytes)} of data, {size(disk.live_bytes)} stored, "
            f"{size(disk.stored_bytes)} added by this point",
            f"             chunks of {size(disk.chunk_size)}, sectors of {disk.sector_size} bytes",
            f"             digest {disk.digest}",
        )
        if disk.unreadable:
            lost = sum(length for _offset, length in disk.unreadable)
            say(f"             {count(len(disk.unreadable), 'range')} could not be read, {size(lost)}: zeros instead")
            for offset, length in disk.unreadable[:20]:
                say(f"               {length} bytes at {offset}")
    locked = _locked(invocation, repository, found) if locks else {}
    return Ending(
        values={
            **locked,
            "point": manifest.label,
            "manifest": found.object_hash,
            "manifest_bytes": found.stored,
            **manifest.model_dump(mode="json"),
        }
    )


def _locked(invocation: Invocation, repository: Repository, point: Point) -> dict[str, Any]:
    """The smallest lock of the point: as long nobody can delete it."""
    from pipeline.guard.retention import Locks, objects_of
    from pipeline.store.address import parse_address

    locks = Locks(parse_address(invocation.address))
    invocation.stack.callback(locks.close)
    objects = objects_of(repository, [point])
    found, keys = locks.shortest(objects), objects.keys
    if found is None:
        invocation.output.say(f"lock         none: at least one of {count(len(keys), 'object')} can be deleted")
        return {"lock": None}
    invocation.output.say(
        f"lock         {found.mode.lower()} until {moment(found.until.isoformat())}, "
        f"the smallest of {count(len(keys), 'object')}"
    )
    return {"lock": {"mode": found.mode.lower(), "until": found.until.isoformat()}}
