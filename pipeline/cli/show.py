"""`failback show`: everything a recovery point says."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.units import count, moment, size


@command
def show(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
) -> Ending:
    """Show a recovery point: the machine's hardware, its disks, where it came from."""
    from manifests.names import parse_point
    from pipeline.catalogue import resolve

    found = resolve(invocation.open_repository(), parse_point(point))
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
    return Ending(
        values={
            "point": manifest.label,
            "manifest": found.object_hash,
            "manifest_bytes": found.stored,
            **manifest.model_dump(mode="json"),
        }
    )
