"""Which disk goes to which datastore, in which format, and what room that needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from importers.vmware.choice import NoChoice
from importers.vmware.datastores import Datastore, pick
from importers.vmware.hardware import rounded
from importers.vmware.inventory import Host, Site
from importers.vmware.networks import PortGroup
from importers.vmware.options import DISK_FORMATS, DiskFormat, VmwareOptions
from manifests.manifest import Disk
from pipeline.finding import Finding
from pipeline.wanted import Wanted

GRAIN, STORED_GRAIN = 64 << 10, 66048
"""Bytes of a grain of a VMDK stream, and of the stream for one that does not shrink."""
LARGEST_STREAM = 1 << 41
"""Sector numbers in a stream have 32 bits: 2 TiB."""
_ROOM = "free some there, name another `storage:` or `datastore`, or lower `reserve` in the options"


@dataclass(frozen=True, slots=True)
class Placement:
    """One disk's."""

    number: int
    datastore: Datastore
    format: DiskFormat
    size: int
    """Bytes of the virtual disk."""
    needs: int
    """Bytes on the datastore once it is full."""


def format_of(wanted: Wanted, options: VmwareOptions, number: int) -> DiskFormat:
    """Raises NoChoice."""
    said = wanted.disks[number].format if number in wanted.disks else ""
    for known in DISK_FORMATS:
        if (said or options.format) == known:
            return known
    raise NoChoice(f"{said!r} is no format of vSphere", remedy=f"use one of {', '.join(DISK_FORMATS)}")


def place_disks(
    there: Sequence[Datastore], site: Site, disks: Sequence[Disk], wanted: Wanted, options: VmwareOptions
) -> tuple[list[Placement], list[Finding]]:
    """Where each disk would go now. Of a datastore cluster the member with most free space is taken, so an answer is
    good for new disks only: those that were made are where they are."""
    placements: list[Placement] = []
    findings: list[Finding] = []
    for disk in disks:
        target = wanted.disks.get(disk.number)
        try:
            name = (target.storage if target else "") or options.datastore
            datastore = pick(there, name, where=f"at {site.compute.name}")
            kind = format_of(wanted, options, disk.number)
        except NoChoice as error:
            findings.append(Finding("error", f"disk {disk.number}", error.message, error.remedy))
            continue
        size = rounded(disk.size)
        needs = min(disk.data_bytes, size) if kind == "thin" else size
        placements.append(Placement(disk.number, datastore, kind, size, needs))
        if datastore.largest_disk and size > datastore.largest_disk:
            message = f"{datastore.name} takes disks of {datastore.largest_disk >> 30} GiB at most"
            findings.append(Finding("error", f"disk {disk.number}", message, "name another `storage:` in the mapping"))
    return placements, findings


def fitting_hosts(site: Site, stores: Sequence[Datastore], networks: Sequence[PortGroup]) -> list[Host]:
    """Usable hosts that have every one of the datastores and networks. Raises NoChoice when none has."""
    wanted = [hosts for hosts in (*(s.hosts for s in stores), *(n.hosts for n in networks)) if hosts]
    found = [host for host in site.usable if all(host.id in hosts for hosts in wanted)]
    if not found:
        names = [f"the datastore {thing.name}" for thing in stores] + [
            f"the network {thing.name}" for thing in networks
        ]
        raise NoChoice(
            f"no usable host of {site.compute.name} has {', '.join(dict.fromkeys(names))} together",
            remedy="name datastores and networks that one host has, or make them known to one",
        )
    return found


def space(
    placements: Sequence[Placement],
    disks: Sequence[Disk],
    options: VmwareOptions,
    memory: int,
    held: Mapping[str, int] | None = None,
) -> Iterator[Finding]:
    """What the datastores lack. `memory`: bytes that the machine's swap file takes beside its first disk; `held`: bytes
    by datastore id that an earlier stage of this machine has there already."""
    data = {disk.number: disk.data_bytes for disk in disks}
    for datastore in {p.datastore.id: p.datastore for p in placements}.values():
        here = [p for p in placements if p.datastore.id == datastore.id]
        home = memory if placements and placements[0].datastore.id == datastore.id else 0
        needs = max(sum(p.needs for p in here) - (held or {}).get(datastore.id, 0), 0)
        layer = sum(data[p.number] for p in here) * options.reserve // 100
        subject = f"datastore {datastore.name}"
        shown = (
            f"{_mib(needs)} for disks, {_mib(layer)} reserved for snapshots ({options.reserve} % of the data), "
            f"{_mib(home)} for its swap file; {_mib(datastore.free)} are free"
        )
        if needs > datastore.free:
            yield Finding("error", subject, f"the disks do not fit: {shown}", _ROOM)
        elif needs + layer + home > datastore.free:
            yield Finding("warning", subject, f"the disks fit, and what comes after may not: {shown}", _ROOM)
        else:
            yield Finding("note", subject, f"there is room: {shown}")


def largest_stream(disk: Disk) -> int:
    """Bytes that the VMDK stream of a disk has at most."""
    grains = -(-disk.data_bytes // GRAIN)
    tables = -(-disk.size // (512 * GRAIN))
    return grains * STORED_GRAIN + tables * 2560 + (4 * tables + 1024) + 128 * 512


def streams(disks: Sequence[Disk], *, worker: bool) -> Iterator[Finding]:
    """Disks whose stream would reach what its sector numbers can count."""
    for disk in disks:
        if largest_stream(disk) >= LARGEST_STREAM:
            message = f"its {disk.data_bytes >> 30} GiB of data are too much for one VMDK stream (2 TiB)"
            if worker:
                yield Finding("note", f"disk {disk.number}", f"{message}: the worker writes it")
            else:
                remedy = "let a worker write it: name its network with `worker: {network: ...}` in the options"
                yield Finding("error", f"disk {disk.number}", message, remedy)


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
