"""`failback export`: disks of a machine become a recovery point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import CorruptObject, UsageError
from pipeline.units import count, duration, rate, size

if TYPE_CHECKING:
    from manifests.machine import Machine
    from manifests.manifest import Consistency
    from pipeline.catalogue import Point
    from pipeline.exporters.base import Exporter
    from pipeline.repository import Repository
    from pipeline.transfer.export import ExportResult

CONSISTENCIES = ("crash", "filesystem", "application")
_HARDWARE = "Hardware"
_CHANGES = "Changed blocks"


@command
def export(
    invocation: Invocation,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="The machine's name in the repository.")],
    disk: Annotated[
        list[str],
        typer.Option(
            metavar="PATH",
            help="A disk: raw file, image, block device, nbd:// or nbd+unix://. Once for each, in order.",
        ),
    ],
    image_format: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="[N=]FORMAT", help="Format of the images when the extension does not say it."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read and index everything, as if there were no parent.")
    ] = False,
    final: Annotated[
        bool, typer.Option("--final", help="The machine is stopped for good: the last point before a cutover.")
    ] = False,
    fewer_disks: Annotated[
        bool, typer.Option("--fewer-disks", help="The machine has lost a disk that its newest point has.")
    ] = False,
    base: Annotated[
        list[str] | None,
        typer.Option(metavar="MACHINE@POINT", help="Do not send chunks that this point has. May be repeated."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Mark the point; `forget --tag` finds it by it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    allow_live: Annotated[
        bool, typer.Option("--allow-live", help="Read a disk that is in use; the point is recorded as torn.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Record unreadable ranges instead of stopping; ends with code 10.")
    ] = False,
    consistency: Annotated[
        str, typer.Option(metavar="KIND", help="What the disks are: crash, filesystem or application consistent.")
    ] = "crash",
    chunk_size: Annotated[
        int | None, typer.Option("--chunk-size", metavar="KIB", help="Size of a chunk; fixed once a disk has points.")
    ] = None,
    level: Annotated[
        int, typer.Option(min=1, max=9, help="zstd level to begin with; rises while the network is the bottleneck.")
    ] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[N=]FILE",
            help='JSON {"since": POINT, "extents": [[offset, length], …]}: read only this. File or URL.',
            rich_help_panel=_CHANGES,
        ),
    ] = None,
    changes_since: Annotated[
        str,
        typer.Option(
            metavar="POINT",
            help="Point at which the changes begin, when FILE does not say it.",
            rich_help_panel=_CHANGES,
        ),
    ] = "",
    no_change_maps: Annotated[
        bool,
        typer.Option("--no-change-maps", help="Compare every block, whatever bitmaps say.", rich_help_panel=_CHANGES),
    ] = False,
    this_host: Annotated[
        bool, typer.Option("--this-host", help="Take the hardware of this host.", rich_help_panel=_HARDWARE)
    ] = False,
    hardware: Annotated[
        str, typer.Option(metavar="FILE", help="Take it from a YAML file or URL.", rich_help_panel=_HARDWARE)
    ] = "",
    firmware: Annotated[
        str | None, typer.Option(metavar="KIND", help="bios or uefi.", rich_help_panel=_HARDWARE)
    ] = None,
    secure_boot: Annotated[
        bool | None,
        typer.Option("--secure-boot/--no-secure-boot", help="UEFI secure boot.", rich_help_panel=_HARDWARE),
    ] = None,
    cpus: Annotated[int | None, typer.Option(help="Virtual CPUs.", rich_help_panel=_HARDWARE)] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="4G, 512M, or a number of MiB.", rich_help_panel=_HARDWARE)
    ] = None,
    nic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="mac=…,network=…,address=…,model=…. May be repeated.", rich_help_panel=_HARDWARE
        ),
    ] = None,
    bus: Annotated[
        list[str] | None,
        typer.Option(metavar="[N=]BUS", help="scsi, sata, virtio, nvme, ide …", rich_help_panel=_HARDWARE),
    ] = None,
    boot_disk: Annotated[
        int | None, typer.Option(metavar="N", help="Number of the disk to boot from.", rich_help_panel=_HARDWARE)
    ] = None,
    serial: Annotated[
        list[str] | None, typer.Option(metavar="[N=]TEXT", help="Serial of a disk.", rich_help_panel=_HARDWARE)
    ] = None,
) -> Ending:
    """Export the disks of a machine as one recovery point.

    The first export is full; later ones send what changed. Interrupted, the same command goes on where it ended.
    """
    from manifests.names import encode_machine

    encode_machine(machine)
    if consistency not in CONSISTENCIES:
        raise UsageError(f"--consistency {consistency} is unknown", remedy=f"use {', '.join(CONSISTENCIES)}")
    if len(set(disk)) < len(disk):
        raise UsageError("one disk is named twice", remedy="give --disk once for each disk")

    from pipeline.cli.per_disk import per_disk
    from pipeline.cli.tags import parse_tags

    formats = per_disk(image_format or [], len(disk), "--format", one_for_all=True)
    change_files = per_disk(changes or [], len(disk), "--changes", one_for_all=False)
    if changes_since and not changes:
        raise UsageError("--changes-since needs --changes", remedy="leave it out, or give the change list")
    repository = invocation.open_repository()
    exporters = [_opened(invocation, spec, chosen, allow_live) for spec, chosen in zip(disk, formats, strict=True)]

    from pipeline.exporters.format import format_of_source
    from pipeline.transfer.export import export_machine
    from pipeline.transfer.export_request import DiskSource, ExportOptions

    parent = _parent(invocation, repository, machine, full=full)
    if not fewer_disks:
        _check_disks(disk, parent)
    flags = _given(firmware=firmware, secure_boot=secure_boot, cpus=cpus, memory=memory, nics=nic)
    described, disk_lines = _machine(machine, flags, hardware, this_host, parent)
    if not described.nics and (hardware or this_host or flags):
        invocation.warn(
            "no network adapter is recorded: the machine comes home without one, and no check can reach its ports "
            "(--nic network=NAME, once for each)"
        )
    settled = _disk_settings(len(disk), disk_lines, parent, bus or [], serial or [], boot_disk)
    if any(exporter.live for exporter in exporters):
        invocation.warn("a disk is in use while it is read: the point is recorded as torn")
        consistency = "torn"
    sources = []
    for number, exporter in enumerate(exporters):
        changed = None
        if (where := change_files[number]) is not None:
            from pipeline.cli.changes import read_changes

            newest = parent.manifest.sequence if parent else 0
            changed = read_changes(where, since=changes_since, latest=newest, size=exporter.size)
        sources.append(
            DiskSource(
                exporter,
                disk[number],
                source_format=format_of_source(disk[number], formats[number]),
                changes=changed,
                use_change_maps=not no_change_maps,
                **settled[number],
            )
        )
    settings = invocation.settings
    options = ExportOptions(
        state=settings.state_dir,
        full=full,
        final=final,
        dry_run=dry_run,
        keep_going=keep_going,
        consistency=cast("Consistency", consistency),
        bases=_bases(repository, base or []),
        tags=parse_tags(tag or []),
        chunk_size=chunk_size << 10 if chunk_size is not None else None,
        memory=settings.memory_mib << 20,
        uploads=settings.parallel,
        level=level,
        top_level=max(level, 6),
    )

    from pipeline.cli.progress import shown

    with shown(invocation.output) as meter:
        invocation.how_to_go_on = lambda: (
            "run the same command again to go on"
            + (f"; {size(stored)} are stored already" if (stored := sum(c.sent for c in meter.all)) else "")
            if not dry_run
            else ""
        )
        result = export_machine(repository, described, sources, options, watch=meter, tell=invocation.note)
    return _ending(invocation, described, result)


def _opened(invocation: Invocation, spec: str, image_format: str | None, allow_live: bool) -> Exporter:
    from pipeline.exporters.open import open_exporter

    exporter = open_exporter(spec, image_format=image_format, allow_live=allow_live)
    invocation.stack.callback(exporter.close)
    return exporter


def _parent(invocation: Invocation, repository: Repository, machine: str, *, full: bool) -> Point | None:
    """The machine's newest point; what the local index copy knows saves most of the listing."""
    from pipeline.catalogue import latest
    from pipeline.transfer.index_copy import copy_folder, known_sequence

    known = known_sequence(copy_folder(invocation.settings.state_dir, repository, machine, 0))
    try:
        return latest(repository, machine, known=known)
    except CorruptObject as error:
        if not full:
            raise CorruptObject(
                error.message, remedy=f"no increment can build on it: export {machine} with --full to begin anew"
            ) from error
        invocation.warn(f"{error.message}; hardware is not taken from it")
        return None


def _check_disks(named: list[str], parent: Point | None) -> None:
    """A point has the disks that were named for it: one that was forgotten would be missing from the machine."""
    before = parent.manifest.disks if parent else ()
    if parent and len(named) < len(before):
        raise UsageError(
            f"{parent.manifest.label} has {count(len(before), 'disk')} "
            f"({', '.join(f'{d.number}: {d.name}' for d in before)}), {len(named)} would be exported now",
            remedy="name every disk with --disk, in the same order; if the machine has lost one, add --fewer-disks",
        )


def _bases(repository: Repository, names: list[str]) -> tuple[Point, ...]:
    from manifests.names import parse_point
    from pipeline.catalogue import resolve

    return tuple(resolve(repository, parse_point(name)) for name in names)


def _given(**flags: Any) -> dict[str, Any]:
    """The hardware flags that were given, as properties of a machine."""
    from pipeline.described import memory_bytes, parse_nic

    values = {name: value for name, value in flags.items() if value is not None and value != []}
    if "memory" in values:
        values["memory_bytes"] = memory_bytes(values.pop("memory"))
    if "nics" in values:
        values["nics"] = [parse_nic(text) for text in values["nics"]]
    return values


def _machine(
    name: str, flags: dict[str, Any], hardware: str, this_host: bool, parent: Point | None
) -> tuple[Machine, list[dict[str, Any]]]:
    """The machine, and what the hardware file says of its disks."""
    from pipeline.described import describe, split_file

    layers, disks = [flags], list[dict[str, Any]]()
    if hardware:
        from pipeline.cli.documents import read_document

        values, disks = split_file(read_document(hardware), hardware)
        layers.append(values)
    if this_host:
        from pipeline import hardware as host

        layers.append(host.this_host())
    if parent:
        layers.append(parent.manifest.machine.model_dump())
    return describe(name, layers, where=hardware or "the flags"), disks


def _disk_settings(
    disks: int,
    lines: list[dict[str, Any]],
    parent: Point | None,
    bus: list[str],
    serial: list[str],
    boot_disk: int | None,
) -> list[dict[str, Any]]:
    """Bus, serial and boot flag of each disk, with the same precedence as the machine's hardware."""
    from pipeline.cli.per_disk import per_disk

    buses = per_disk(bus, disks, "--bus", one_for_all=True)
    serials = per_disk(serial, disks, "--serial", one_for_all=False)
    if boot_disk is not None and not 0 <= boot_disk < disks:
        raise UsageError(f"--boot-disk {boot_disk}: there is no such disk", remedy=f"they are 0 to {disks - 1}")
    if len(lines) > disks:
        raise UsageError(
            f"the hardware file describes {len(lines)} disks, {count(disks, 'disk')} are exported",
            remedy="name each disk with --disk, in the same order",
        )
    before = {d.number: d for d in parent.manifest.disks} if parent else {}
    boot = boot_disk
    if boot is None:
        boot = next((n for n, line in enumerate(lines) if line.get("boot")), None)
    if boot is None:
        boot = next((n for n, d in before.items() if d.boot and n < disks), 0)
    found = []
    for number in range(disks):
        line = lines[number] if number < len(lines) else {}
        old = before.get(number)
        found.append(
            {
                "bus": buses[number] or str(line.get("bus") or (old.bus if old else "")),
                "serial": serials[number] or str(line.get("serial") or (old.serial if old else "")),
                "boot": number == boot,
            }
        )
    return found


def _ending(invocation: Invocation, machine: Machine, result: ExportResult) -> Ending:
    manifest = result.manifest
    disks = result.disks
    total = sum(d.size for d in disks)
    sums = {
        n: sum(getattr(d.counters, n) for d in disks) for n in ("read", "sent", "resent", "unchanged", "deduplicated")
    }
    metadata = sum(d.metadata for d in disks)
    lost = sum(length for d in disks for _offset, length in d.unreadable)
    label = f"{machine.name}@{result.sequence}"
    kind = manifest.consistency if manifest else ""
    invocation.output.say(
        f"{label} is complete: {count(len(disks), 'disk')}, {size(total)}, {kind}"
        + (", final" if manifest.final else "")
        if manifest
        else f"{label} would take (nothing was sent): {count(len(disks), 'disk')}, {size(total)}"
    )
    if result.resumed:
        invocation.note("  went on where an earlier export had ended")
    for warning in result.report.warnings:
        invocation.warn(warning)
    send = "sent" if manifest else "to send"
    invocation.output.say(
        f"  read {size(sums['read'])}, {send} {size(sums['sent'])}"
        + (f" and {size(metadata)} of index, " if manifest else ", and an index that is not made in a dry run, ")
        + f"unchanged {size(sums['unchanged'])}, deduplicated {size(sums['deduplicated'])}",
        *(
            [f"  of this {size(sums['resent'])} did not change: sent again so that old packs can go"]
            if sums["resent"]
            else []
        ),
        f"  took {duration(invocation.seconds)}: read at {rate(sums['read'], invocation.seconds)}, "
        f"went through the disks at {rate(total, invocation.seconds)}",
    )
    for disk in disks:
        for offset, length in disk.unreadable:
            invocation.warn(f"disk {disk.number}: {length} bytes at {offset} could not be read; they restore as zeros")
    if manifest:
        invocation.output.say(f"  restore it with: {_restore(invocation, label)}")
    return Ending(
        exitcodes.UNREADABLE if lost else exitcodes.OK,
        {
            "point": label if manifest else None,
            "sequence": result.sequence,
            "dry_run": manifest is None,
            "consistency": kind or None,
            "resumed": result.resumed,
            **sums,
            "metadata": metadata if manifest else None,
            "disks": [
                {
                    "number": d.number,
                    "name": d.name,
                    "size": d.size,
                    "mode": d.mode,
                    "reason": d.reason,
                    "metadata": d.metadata if manifest else None,
                    "unreadable": d.unreadable,
                    "digest": manifest.disks[d.number].digest if manifest else None,
                    **{n: getattr(d.counters, n) for n in (*sums, "chunks_new")},
                }
                for d in disks
            ],
        },
    )


def _restore(invocation: Invocation, label: str) -> str:
    import shlex

    where = f"-r {shlex.quote(invocation.common.repository)} " if invocation.common.repository else ""
    return f"failback {where}import {shlex.quote(label)} --to files --out DIR"
