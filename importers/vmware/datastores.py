"""Datastores: which one a disk goes to, and what is free there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pyVmomi import vim

from importers.vmware.choice import NoChoice, choose
from importers.vmware.connection import Connection
from importers.vmware.inventory import Entity, Site
from importers.vmware.properties import children, values_of, values_of_all


@dataclass(frozen=True, slots=True)
class Datastore(Entity):
    """Sizes in bytes."""

    free: int = 0
    capacity: int = 0
    kind: str = ""
    """VMFS, NFS, NFS41, vsan, VVOL, ..."""
    usable: bool = True
    """Accessible, and not in maintenance."""
    pod: str = ""
    """The datastore cluster it is a member of."""
    url: str = ""
    largest_disk: int = 0
    """Of a virtual disk; 0: not told."""
    hosts: frozenset[str] = frozenset()
    """Ids of the hosts that have it mounted for writing."""


_PATHS = (
    "name",
    "summary.accessible",
    "summary.maintenanceMode",
    "summary.freeSpace",
    "summary.capacity",
    "summary.type",
    "summary.url",
    "info",
    "host",
    "parent",
)


def all_datastores(connection: Connection, site: Site) -> list[Datastore]:
    """Of the datacenter, that a host of the site can write to."""
    root = values_of(connection, site.datacenter.object, "datastoreFolder")["datastoreFolder"]
    pods = {thing: unquote(v["name"]) for thing, v in children(connection, root, vim.StoragePod, "name")}
    found = [_datastore(thing, v, pods) for thing, v in children(connection, root, vim.Datastore, *_PATHS)]
    ours = {host.id for host in site.hosts}
    return sorted((d for d in found if not d.hosts or d.hosts & ours), key=lambda d: (d.name, d.id))


def find_datastore(connection: Connection, site: Site, name: str) -> Datastore:
    """The datastore of that name, or the member with most free space of the datastore cluster of that name; empty: the
    only one. Raises NoChoice."""
    return pick(all_datastores(connection, site), name, where=f"at {site.compute.name}")


def pick(there: Sequence[Datastore], name: str, *, where: str) -> Datastore:
    """`find_datastore` among those that were listed."""
    members = [d for d in there if name and d.pod == name and d.usable]
    if members and not any(d.name == name for d in there):
        return max(members, key=lambda d: (d.free, d.name))
    listed: list[Datastore | _Cluster] = [*there]
    if name:
        listed += [_Cluster(pod) for pod in {d.pod for d in there if d.pod}]
    chosen = choose("datastore", name, listed, where=where, key="datastore")
    if isinstance(chosen, Datastore) and chosen.usable:
        return chosen
    what = "every member of the datastore cluster" if isinstance(chosen, _Cluster) else "the datastore"
    raise NoChoice(
        f"{what} {chosen.name} is not accessible, or in maintenance", remedy="bring it back, or name another one"
    )


def free_bytes(connection: Connection, datastore: Any, *, refresh: bool = False) -> int:
    """Free now. `refresh`: the host looks anew, for its number is some minutes old."""
    if refresh:
        connection.ask(datastore.RefreshDatastore, "cannot refresh what is free in the datastore")
    return int(values_of(connection, datastore, "summary.freeSpace").get("summary.freeSpace", 0))


def named_datastores(connection: Connection, datastores: Sequence[Any]) -> list[Datastore]:
    """What is known of these, in their order."""
    found = values_of_all(connection, list(datastores), *_PATHS)
    return [_datastore(thing, v, {}) for thing, v in zip(datastores, found, strict=True)]


@dataclass(frozen=True, slots=True)
class _Cluster:
    name: str


def _datastore(thing: Any, values: Any, pods: dict[Any, str]) -> Datastore:
    mounts = values.get("host", [])
    return Datastore(
        thing,
        unquote(values.get("name", "")),
        free=int(values.get("summary.freeSpace", 0)),
        capacity=int(values.get("summary.capacity", 0)),
        kind=str(values.get("summary.type", "")),
        usable=values.get("summary.accessible") is not False
        and values.get("summary.maintenanceMode", "normal") == "normal",
        pod=pods.get(values.get("parent"), ""),
        url=str(values.get("summary.url", "")),
        largest_disk=int(getattr(values.get("info"), "maxVirtualDiskCapacity", None) or 0),
        hosts=frozenset(str(m.key._moId) for m in mounts if m.mountInfo.accessMode == "readWrite"),
    )
