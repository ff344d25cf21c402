"""Networks: port groups of standard and distributed switches, and opaque ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from pyVmomi import vim

from importers.vmware.choice import choose
from importers.vmware.connection import Connection
from importers.vmware.inventory import Entity, Site
from importers.vmware.properties import children, values_of


@dataclass(frozen=True, slots=True)
class PortGroup(Entity):
    """A network that adapters can be in."""

    kind: Literal["standard", "distributed", "opaque"] = "standard"
    hosts: frozenset[str] = frozenset()
    """Ids of hosts that have it."""
    switch: Any = field(default=None, compare=False)
    """The distributed switch."""
    key: str = ""
    """Of the distributed port group; of an opaque network its id."""
    opaque_type: str = ""


def all_networks(connection: Connection, site: Site) -> list[PortGroup]:
    """Of the datacenter, that a host of the site has; uplinks left out."""
    root = values_of(connection, site.datacenter.object, "networkFolder")["networkFolder"]
    groups = children(
        connection,
        root,
        vim.dvs.DistributedVirtualPortgroup,
        *("name", "key", "host", "config.distributedVirtualSwitch", "config.uplink", "tag"),
    )
    found = [
        PortGroup(
            thing,
            unquote(v.get("name", "")),
            "distributed",
            _ids(v.get("host", [])),
            v.get("config.distributedVirtualSwitch"),
            str(v.get("key", "")),
        )
        for thing, v in groups
        if not _uplink(v)
    ]
    distributed = {thing for thing, _v in groups}
    for thing, v in children(connection, root, vim.Network, "name", "host", "summary"):
        if thing not in distributed:
            found.append(_plain(thing, v))
    ours = {host.id for host in site.hosts}
    return sorted((n for n in found if not n.hosts or n.hosts & ours), key=lambda n: (n.name, n.id))


def find_network(connection: Connection, site: Site, name: str) -> PortGroup:
    """Raises NoChoice."""
    there = all_networks(connection, site)
    return choose("network", name, there, where=f"at {site.compute.name}", key="networks")


def backing_of(connection: Connection, network: PortGroup) -> Any:
    """What plugs an adapter into the network."""
    card = vim.vm.device.VirtualEthernetCard
    if network.kind == "distributed":
        switch = values_of(connection, network.switch, "uuid")["uuid"]
        port = vim.dvs.PortConnection(switchUuid=switch, portgroupKey=network.key)
        return card.DistributedVirtualPortBackingInfo(port=port)
    if network.kind == "opaque":
        return card.OpaqueNetworkBackingInfo(opaqueNetworkId=network.key, opaqueNetworkType=network.opaque_type)
    return card.NetworkBackingInfo(deviceName=network.name, network=network.object)


def hosts_without(network: PortGroup, site: Site) -> list[str]:
    """Names of the site's usable hosts that do not have it."""
    return [host.name for host in site.usable if network.hosts and host.id not in network.hosts]


def _plain(thing: Any, values: Any) -> PortGroup:
    name, hosts = unquote(values.get("name", "")), _ids(values.get("host", []))
    if isinstance(thing, vim.OpaqueNetwork):
        summary = values.get("summary")
        return PortGroup(
            thing, name, "opaque", hosts, None, str(summary.opaqueNetworkId), str(summary.opaqueNetworkType)
        )
    return PortGroup(thing, name, "standard", hosts)


def _uplink(values: Any) -> bool:
    """vSphere 5 marks them with a tag, later ones with a field."""
    if values.get("config.uplink") is not None:
        return bool(values["config.uplink"])
    return any("SYSTEM/DVS.UPLINKPG" in str(tag.key) for tag in values.get("tag", []))


def _ids(hosts: Any) -> frozenset[str]:
    return frozenset(str(host._moId) for host in hosts)
