"""What can be known before a machine is brought to vSphere. Changes nothing, and asks little of vCenter: leaf
properties, once each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim

from importers.vmware import layer
from importers.vmware.adoption import adoption_findings
from importers.vmware.choice import NoChoice
from importers.vmware.connection import Connection
from importers.vmware.datastores import all_datastores, named_datastores
from importers.vmware.environment import look_around
from importers.vmware.hardware import choose_hardware
from importers.vmware.inventory import Entity, Site, check_usable, find_folder, find_site
from importers.vmware.machines import find_machine, machine_called
from importers.vmware.networks import all_networks
from importers.vmware.options import VmwareOptions
from importers.vmware.placing import Placement, fitting_hosts, place_disks, space, streams
from importers.vmware.policies import find_policy, fitting
from importers.vmware.privileges import For, Where, check_privileges, root_of
from importers.vmware.properties import values_of
from importers.vmware.spec import LONGEST_NAME, tried_name
from importers.vmware.uploads import findings_of, try_doors
from importers.vmware.wiring import wiring
from manifests.manifest import Manifest
from pipeline.errors import FailbackError
from pipeline.finding import Finding
from pipeline.target import Intent
from pipeline.wanted import Wanted

OLDEST = (6, 7)
"""vSphere that the API calls of ours exist in."""
SKEW_SECONDS = 60.0
_FREE = ("esxbasic", "esxfree", "free")
"""Editions, as far as known."""


def platform(connection: Connection, options: VmwareOptions) -> list[Finding]:
    """What is missing whatever the machine: login, licence, clock, site, rights, ways for uploads."""
    found: list[Finding] = []
    try:
        about = connection.content.about
        site = find_site(connection, options)
        check_usable(site)
        found.append(Finding("note", "vSphere", f"{about.fullName or about.name} at {connection.name}"))
        found += [*_version(connection), *_licence(connection), *_clock(connection)]
        found += findings_of(try_doors(connection, options, site), worker=options.worker.wanted)
        objects: list[tuple[Where, Entity]] = [("folder", site.vm_folder)]
        if options.datastore:
            placed = [d for d in all_datastores(connection, site) if options.datastore in (d.name, d.pod)]
            objects += [("datastore", datastore) for datastore in placed]
        found += _rights(connection, options, site, objects)
        found += _worker(connection, options, site)
    except FailbackError as error:
        found.append(_as_finding("vSphere", error))
    return found


def machine(
    connection: Connection,
    options: VmwareOptions,
    manifest: Manifest,
    wanted: Wanted,
    intent: Intent,
    marker: uuid.UUID | None = None,
) -> list[Finding]:
    """What is wrong or doubtful with this machine at this site. `marker`: of the machine (its instance UUID), where it
    may be there already; what it holds is then not counted twice, and its own name and addresses are no conflict."""
    found: list[Finding] = []
    try:
        site = find_site(connection, options)
        check_usable(site)
        ours = find_machine(connection, marker) if marker is not None else None
        found += [*_version(connection), *_licence(connection), *_clock(connection)]
        found += findings_of(try_doors(connection, options, site), worker=options.worker.wanted)
        environment = look_around(connection, site, options.version)
        if options.version and environment.versions and environment.version not in environment.versions:
            known = ", ".join(f"vmx-{v}" for v in environment.versions[-5:])
            message = f"not every usable host of {site.compute.name} makes machines of {options.version}"
            found.append(Finding("error", "version", message, f"they make {known}; leave `version` out for the newest"))
        choice = choose_hardware(manifest.disks, wanted, options, environment)
        found += [*choice.findings, *_hosts(site, choice.cpus, choice.memory)]
        there = all_datastores(connection, site)
        placements, doubts = place_disks(there, site, manifest.disks, wanted, options)
        found += doubts
        found += space(
            placements,
            manifest.disks,
            options,
            choice.memory,
            held_by(connection, ours) if options.worker.wanted else None,
        )
        found += streams(manifest.disks, worker=options.worker.wanted)
        found += _together(connection, site, placements, [card.network for card in choice.cards if card.network])
        found += _policy(connection, options, placements)
        found += _devices(wanted)
        folder = _folder(connection, site, wanted.folder, found)
        name = tried_name(wanted.name) if intent.purpose == "rehearsal" else wanted.name
        found += _name(connection, folder, name, ours)
        found += wiring(connection, site, choice.cards, options, ours)
        found += _pool(connection, site, choice.memory) if intent.boots else []
        objects: list[tuple[Where, Entity]] = [("folder", folder)]
        objects += [("datastore", p.datastore) for p in {p.datastore.id: p for p in placements}.values()]
        names = {card.network for card in choice.cards}
        objects += [("network", n) for n in all_networks(connection, site) if n.name in names]
        found += _rights(connection, options, site, objects)
        if ours is not None:
            found += adoption_findings(connection, ours, ours=(layer.NAME,))
    except FailbackError as error:
        found.append(_as_finding("vSphere", error))
    return found


def held_by(connection: Connection, machine: Any) -> dict[str, int]:
    """Bytes that a machine takes, by id of the datastore."""
    if machine is None:
        return {}
    usage = values_of(connection, machine, "storage.perDatastoreUsage").get("storage.perDatastoreUsage", [])
    stores = named_datastores(connection, [one.datastore for one in usage])
    return {store.id: int(one.committed) for store, one in zip(stores, usage, strict=True)}


def _version(connection: Connection) -> Iterator[Finding]:
    about = connection.content.about
    parts = tuple(int(p) for p in str(about.version).split(".")[:2] if p.isdigit())
    if parts and parts < OLDEST:
        message = f"it is version {about.version}; calls of failback exist from {OLDEST[0]}.{OLDEST[1]} on"
        yield Finding("error", "vSphere", message, "update it, or bring the disks back with --to files")


def _licence(connection: Connection) -> Iterator[Finding]:
    """A single ESXi host with the free licence: its API only reads. (vCenter takes no such hosts.) Unverified."""
    if connection.is_vcenter:
        return
    licences = values_of(connection, connection.content.licenseManager, "licenses").get("licenses", [])
    free = [str(one.name) for one in licences if str(one.editionKey).lower().startswith(_FREE)]
    if free:
        yield Finding(
            "error",
            "licence",
            f"the host has the licence {free[0]!r}, with which its API only reads",
            "assign another licence (its evaluation of 60 days allows changes, too), or use its vCenter",
        )


def _clock(connection: Connection) -> Iterator[Finding]:
    service = vim.ServiceInstance("ServiceInstance", connection.content.propertyCollector._stub)
    there = connection.ask(service.CurrentTime, f"cannot read the clock of {connection.name}")
    skew = (datetime.now(UTC) - there).total_seconds()
    if abs(skew) >= SKEW_SECONDS:
        side = "behind" if skew > 0 else "ahead of"
        message = f"it is {abs(skew):.0f} s {side} this host's: certificates, leases and records will disagree"
        yield Finding("warning", "clock", message, "let both follow one time server (NTP)")


def _hosts(site: Site, cpus: int, memory: int) -> Iterator[Finding]:
    most = max((host.cpus for host in site.usable), default=0)
    if most and cpus > most:
        message = f"{cpus} CPUs are wanted; the largest usable host of {site.compute.name} has {most}"
        yield Finding("error", "cpus", message, "lower `cpus:` in the mapping, or name another cluster or host")
    largest = max((host.memory for host in site.usable), default=0)
    if largest and memory > largest:
        message = f"{memory >> 20} MiB are wanted; the largest usable host has {largest >> 20} MiB"
        yield Finding("error", "memory", message, "lower `memory:` in the mapping, or name another cluster or host")


def _together(
    connection: Connection, site: Site, placements: Sequence[Placement], networks: Sequence[str]
) -> Iterator[Finding]:
    stores = [placed.datastore for placed in placements]
    try:
        fitting_hosts(site, stores, [network for network in all_networks(connection, site) if network.name in networks])
    except NoChoice as error:
        yield Finding("error", "host", error.message, error.remedy)


def _pool(connection: Connection, site: Site, memory: int) -> Iterator[Finding]:
    limit = values_of(connection, site.pool.object, "config.memoryAllocation.limit")
    most = int(limit.get("config.memoryAllocation.limit") or -1)
    if 0 <= most < memory >> 20:
        message = f"{memory >> 20} MiB are wanted; the resource pool {site.pool.name} gives {most} MiB to all in it"
        yield Finding("warning", "memory", message, "raise its limit, name another `pool`, or lower `memory:`")


def _policy(connection: Connection, options: VmwareOptions, placements: Sequence[Placement]) -> Iterator[Finding]:
    if not options.policy:
        return
    try:
        policy = find_policy(connection, options.policy)
        stores = list({p.datastore.id: p.datastore for p in placements}.values())
        good = {store.id for store in fitting(connection, policy, stores)}
    except FailbackError as error:
        yield _as_finding("storage policy", error)
        return
    for store in stores:
        if store.id not in good:
            message = f"the datastore {store.name} does not fit the storage policy {policy.name}"
            yield Finding("error", "storage policy", message, "name another datastore, or another `policy`")


def _devices(wanted: Wanted) -> Iterator[Finding]:
    for number, target in wanted.disks.items():
        if target.device:
            message = f"a machine of vSphere does not use {target.device} of this host"
            yield Finding("error", f"disk {number}", message, "leave `device:` out, or restore to it with --to files")


def _folder(connection: Connection, site: Site, path: str, found: list[Finding]) -> Entity:
    try:
        return find_folder(connection, site, path)
    except NoChoice as error:
        found.append(Finding("error", "folder", error.message, error.remedy))
        return site.vm_folder


def _name(connection: Connection, folder: Entity, name: str, ours: Any) -> Iterator[Finding]:
    if len(name) > LONGEST_NAME:
        message = f"{name!r} has {len(name)} characters; vSphere takes {LONGEST_NAME}"
        yield Finding("error", "name", message, "give it a shorter `name:` in the mapping")
        return
    other = machine_called(connection, folder, name)
    if other is not None and other != ours:
        message = f"there is a machine or folder called {name!r} in the folder {folder.name} already"
        remedy = "give this one another `name:` or `folder:` in the mapping, or rename that one"
        yield Finding("error", "name", message, remedy)


def _rights(
    connection: Connection, options: VmwareOptions, site: Site, objects: Sequence[tuple[Where, Entity]]
) -> Iterator[Finding]:
    purposes: list[For] = ["cleaning"]
    if options.worker.wanted:
        purposes.append("worker")
    if not options.isolated:
        purposes.append("isolation")
    if options.attributes:
        purposes.append("attributes")
    everywhere: list[tuple[Where, Entity]] = [
        ("pool", site.pool),
        ("cluster", site.compute),
        *objects,
        ("root", root_of(connection)),
    ]
    yield from check_privileges(connection, everywhere, purposes)


def _worker(connection: Connection, options: VmwareOptions, site: Site) -> Iterator[Finding]:
    if not options.worker.wanted:
        message = "no worker is configured: every refresh uploads whole disks again"
        remedy = "name a port group that reaches the bucket with `worker: {network: ...}` in the options"
        yield Finding("note", "worker", message, remedy)
        return
    if options.worker.agent:
        return
    names = {network.name for network in all_networks(connection, site)}
    if options.worker.network not in names:
        message = f"there is no network called {options.worker.network!r} at {site.compute.name}"
        yield Finding("error", "worker", message, f"there are: {', '.join(map(repr, sorted(names)))}")


def _as_finding(subject: str, error: FailbackError) -> Finding:
    return Finding("error", subject, error.message, error.remedy or "see `failback doctor --to vmware`")
