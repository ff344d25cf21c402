"""Where machines are made: datacenter, cluster or host, resource pool, folder.

A single ESXi host has the same tree with one of each, so nothing here asks which of the two it talks to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pyVmomi import vim

from importers.vmware.choice import NoChoice, choose
from importers.vmware.connection import Connection
from importers.vmware.options import VmwareOptions
from importers.vmware.properties import children, values_of, values_of_all
from pipeline.errors import TargetError


@dataclass(frozen=True, slots=True)
class Entity:
    """A managed object with its name, as people read it."""

    object: Any = field(compare=False)
    name: str

    @property
    def id(self) -> str:
        return str(self.object._moId)


@dataclass(frozen=True, slots=True)
class Host(Entity):
    """An ESXi host. `usable`: connected, and not in maintenance."""

    usable: bool = True
    version: str = ""
    cpus: int = 0
    """Logical ones; 0: not told."""
    memory: int = 0
    """Bytes; 0: not told."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the machines of one mapping go."""

    datacenter: Entity
    compute: Entity
    """ComputeResource: a cluster, or what stands around a host outside of one."""
    hosts: tuple[Host, ...]
    """That may run the machine: those of the cluster, or the one that was named."""
    named_host: Host | None
    """That the mapping names."""
    pool: Entity
    vm_folder: Entity
    """Root of the datacenter's machine folders."""

    @property
    def usable(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.usable)


def find_site(connection: Connection, options: VmwareOptions) -> Site:
    """Raises NoChoice for what is not there or not said."""
    datacenter = find_datacenter(connection, options.datacenter)
    compute, hosts, named = _compute(connection, datacenter, options)
    values = values_of(connection, datacenter.object, "vmFolder")
    return Site(
        datacenter=datacenter,
        compute=compute,
        hosts=hosts,
        named_host=named,
        pool=find_pool(connection, compute, options.pool),
        vm_folder=Entity(values["vmFolder"], "vm"),
    )


def site_of(connection: Connection, machine: Any) -> Site:
    """Where a machine is that exists: whatever the mapping says now. No hosts are listed."""
    values = values_of(connection, machine, "resourcePool", "runtime.host", "parent")
    pool, host = values.get("resourcePool"), values.get("runtime.host")
    if pool is not None:
        compute = values_of(connection, pool, "owner")["owner"]
    elif host is not None:  # a template is in no pool
        compute = values_of(connection, host, "parent")["parent"]
    else:
        raise NoChoice(
            f"nothing tells where the machine {machine._moId} is", remedy="give the user System.View on its cluster"
        )
    datacenter = datacenter_of(connection, compute)
    names = values_of_all(connection, [compute], "name", "resourcePool")[0]
    folder = values_of(connection, datacenter.object, "vmFolder")["vmFolder"]
    return Site(
        datacenter=datacenter,
        compute=Entity(compute, unquote(names.get("name", ""))),
        hosts=(),
        named_host=None,
        pool=Entity(pool or names.get("resourcePool"), "Resources"),
        vm_folder=Entity(folder, "vm"),
    )


def datacenter_of(connection: Connection, thing: Any) -> Entity:
    """The datacenter that an object of the inventory is in."""
    while thing is not None:
        values = values_of(connection, thing, "name", "parent")
        if isinstance(thing, vim.Datacenter):
            return Entity(thing, unquote(values.get("name", "")))
        thing = values.get("parent")
    raise NoChoice("it is in no datacenter that we may see", remedy="give the user System.View on the datacenter")


def path_of(connection: Connection, datacenter: Entity) -> str:
    """Its inventory path: with the folders that it is in, names as vCenter keeps them."""
    names: list[str] = []
    thing = datacenter.object
    while thing is not None:
        values = values_of(connection, thing, "name", "parent")
        if values.get("parent") is not None:  # the root has no place in paths
            names.insert(0, str(values.get("name", "")))
        thing = values.get("parent")
    return "/".join(names) or datacenter.name


def find_datacenter(connection: Connection, name: str) -> Entity:
    """By name or inventory path; empty: the only one."""
    if "/" in name:
        return _by_path(connection, name, vim.Datacenter, "datacenter")
    there = _entities(connection, connection.content.rootFolder, vim.Datacenter)
    return choose("datacenter", name, there, where=f"at {connection.name}", key="datacenter")


def find_pool(connection: Connection, compute: Entity, name: str) -> Entity:
    """Resource pool by name or path below that of the cluster or host; empty: that itself."""
    pool = Entity(values_of(connection, compute.object, "resourcePool")["resourcePool"], "Resources")
    parts = [part for part in name.split("/") if part]
    if len(parts) == 1:
        there = [p for p in _entities(connection, pool.object, vim.ResourcePool) if p.object != pool.object]
        return choose("resource pool", parts[0], there, where=f"in {compute.name}", key="pool")
    for part in parts:
        below = values_of(connection, pool.object, "resourcePool").get("resourcePool", [])
        names = values_of_all(connection, list(below), "name")
        there = [Entity(o, unquote(v.get("name", ""))) for o, v in zip(below, names, strict=True)]
        pool = choose("resource pool", unquote(part), there, where=f"in {pool.name}", key="pool")
    return pool


def find_folder(connection: Connection, site: Site, path: str) -> Entity:
    """Machine folder by path below the datacenter's (a slash in a name is %2f there); empty: that itself. Raises
    NoChoice."""
    folder = site.vm_folder
    for part in (part for part in path.split("/") if part):
        below = values_of(connection, folder.object, "childEntity").get("childEntity", [])
        below = [child for child in below if isinstance(child, vim.Folder)]
        names = values_of_all(connection, below, "name")
        there = [Entity(o, unquote(v.get("name", ""))) for o, v in zip(below, names, strict=True)]
        folder = choose("folder", unquote(part), there, where=f"in the machine folder {folder.name}", key="folder")
    return folder


def hosts_of(connection: Connection, compute: Any) -> tuple[Host, ...]:
    """Of a cluster or standalone host, in vCenter's order."""
    objects = values_of(connection, compute, "host").get("host", [])
    return _hosts(connection, list(objects))


def _compute(
    connection: Connection, datacenter: Entity, options: VmwareOptions
) -> tuple[Entity, tuple[Host, ...], Host | None]:
    root = values_of(connection, datacenter.object, "hostFolder")["hostFolder"]
    where = f"in the datacenter {datacenter.name}"
    resources = _entities(connection, root, vim.ComputeResource, vim.ClusterComputeResource)
    if options.cluster:
        clusters = [r for r in resources if isinstance(r.object, vim.ClusterComputeResource)]
        compute = choose("cluster", options.cluster, clusters, where=where, key="cluster")
        hosts = hosts_of(connection, compute.object)
        if not options.host:
            return compute, hosts, None
        host = choose("host", options.host, hosts, where=f"in the cluster {compute.name}", key="host")
        return compute, (host,), host
    if options.host:
        everywhere = [(r, host) for r in resources for host in hosts_of(connection, r.object)]
        host = choose("host", options.host, [h for _r, h in everywhere], where=where, key="host")
        [compute] = [r for r, h in everywhere if h.object == host.object]
        return compute, (host,), host
    compute = choose("cluster or host", "", resources, where=where, key="cluster")
    return compute, hosts_of(connection, compute.object), None


def _hosts(connection: Connection, objects: list[Any]) -> tuple[Host, ...]:
    values = values_of_all(
        connection,
        objects,
        "name",
        "runtime.connectionState",
        "runtime.inMaintenanceMode",
        "config.product.version",
        "hardware.cpuInfo.numCpuThreads",
        "hardware.memorySize",
    )
    return tuple(
        Host(
            thing,
            unquote(v.get("name", "")),
            usable=v.get("runtime.connectionState") == "connected" and not v.get("runtime.inMaintenanceMode"),
            version=str(v.get("config.product.version", "")),
            cpus=int(v.get("hardware.cpuInfo.numCpuThreads", 0)),
            memory=int(v.get("hardware.memorySize", 0)),
        )
        for thing, v in zip(objects, values, strict=True)
    )


def _entities(connection: Connection, root: Any, *kinds: Any) -> list[Entity]:
    """Below `root`, sorted by name. (vCenter slashes out what would break a path: %2f, %5c, %25.)"""
    found: dict[Any, str] = {}
    for kind in kinds:  # a simulator shows no subtypes
        found |= {thing: unquote(v.get("name", "")) for thing, v in children(connection, root, kind, "name")}
    return sorted((Entity(thing, name) for thing, name in found.items()), key=lambda e: (e.name, e.id))


def _by_path(connection: Connection, path: str, kind: Any, word: str) -> Entity:
    index = connection.content.searchIndex
    found = connection.ask(lambda: index.FindByInventoryPath(path.strip("/")), f"cannot look for {path}")
    if not isinstance(found, kind):
        raise NoChoice(f"there is no {word} at {path!r}", remedy="check the path as the vSphere client shows it")
    return Entity(found, path.strip("/").rpartition("/")[2])


def check_usable(site: Site) -> None:
    """Raises TargetError when no host can run a machine now."""
    if not site.usable:
        raise TargetError(
            f"no host of {site.compute.name} is connected and out of maintenance",
            remedy="bring one back, or name another cluster or host in the mapping",
        )
