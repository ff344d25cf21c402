"""What can be known of the networks that a machine is to be plugged into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pyVmomi import vim

from importers.vmware.cards import Card
from importers.vmware.choice import NoChoice, choose
from importers.vmware.connection import Connection
from importers.vmware.inventory import Host, Site
from importers.vmware.networks import PortGroup, all_networks, hosts_without
from importers.vmware.options import VmwareOptions
from importers.vmware.properties import children, values_of, values_of_all
from pipeline.finding import Finding

Policy = Literal["accept", "reject", "unknown"]
OWN_ISOLATED = "failback-isolated"
"""Switch and port group that we make where nobody names an isolated one."""
MOST_NEIGHBOURS = 2000
"""Machines of a network whose adapters are looked through: more take too long."""


def wiring(
    connection: Connection, site: Site, cards: Sequence[Card], options: VmwareOptions, ours: Any = None
) -> Iterator[Finding]:
    """Names, reach and addresses. `ours`: the machine itself, where it exists."""
    there = all_networks(connection, site)
    for name in dict.fromkeys(card.network for card in cards if card.network):
        try:
            network = choose("network", name, there, where=f"at {site.compute.name}", key="networks")
        except NoChoice as error:
            yield Finding("error", f"network {name}", error.message, error.remedy)
            continue
        yield from _reach(network, site)
        here = [card for card in cards if card.network == name]
        yield from _addresses(connection, site, network, [c.mac for c in here if c.mac], ours)
        if any(not card.mac for card in here):
            yield from _new_addresses(connection, network, site)
    if options.isolated:
        yield from _isolated(connection, site, there, options.isolated)
    else:
        yield from _own_isolated(connection, site, cards)


def isolation_of(connection: Connection, site: Site, network: PortGroup) -> list[str]:
    """Names of hosts where the network has a way out, by the uplinks of its switch. Only standard port groups tell;
    for others the answer is empty."""
    if network.kind != "standard":
        return []
    open_on = []
    for host, switches, groups in _host_networks(connection, site.usable):
        for group in groups:
            if group.spec.name == network.name and _uplinks(switches, group.spec.vswitchName):
                open_on.append(host.name)
    return open_on


def _reach(network: PortGroup, site: Site) -> Iterator[Finding]:
    without = hosts_without(network, site)
    if without and len(without) == len(site.usable):
        message = f"no usable host of {site.compute.name} has it"
        yield Finding("error", f"network {network.name}", message, "name another network, cluster or host")
    elif without:
        message = f"the hosts {', '.join(without)} do not have it: the machine must stay on others"
        yield Finding("note", f"network {network.name}", message, "make it on all of them")


def _addresses(
    connection: Connection, site: Site, network: PortGroup, macs: Sequence[str], ours: Any
) -> Iterator[Finding]:
    """Others in the network with an address that is to be kept."""
    subject = f"network {network.name}"
    if not macs:
        return
    there = children(connection, site.vm_folder.object, vim.VirtualMachine, "network")
    machines = [thing for thing, v in there if thing != ours and network.object in v.get("network", [])]
    if len(machines) > MOST_NEIGHBOURS:
        message = f"it has {len(machines)} machines: whether one has an address of ours was not looked for"
        yield Finding("note", subject, message)
        return
    values = values_of_all(connection, machines, "name", "config.hardware.device", "runtime.powerState")
    for known in values:
        for device in known.get("config.hardware.device", []):
            mac = str(getattr(device, "macAddress", "") or "").lower()
            if not isinstance(device, vim.vm.device.VirtualEthernetCard) or mac not in macs:
                continue
            running = known.get("runtime.powerState") == "poweredOn"
            message = f"{known.get('name', 'a machine')} in it has the address {mac}, too" + (
                ", and runs" if running else "; it is off"
            )
            remedy = "stop and unplug that machine before this one starts, or say `mac: new` in the mapping"
            yield Finding("error" if running else "warning", subject, message, remedy)


def _new_addresses(connection: Connection, network: PortGroup, site: Site) -> Iterator[Finding]:
    if port_security(connection, network, site) == "reject":
        message = (
            "its port security rejects other addresses than the adapter's; with `mac: new` a guest that sets its old "
            "address by itself is cut off"
        )
        yield Finding("warning", f"network {network.name}", message, "say `mac: keep`, or free the guest of it")


def port_security(connection: Connection, network: PortGroup, site: Site) -> Policy:
    """Whether frames with another source address than the adapter's pass (MAC changes and forged transmits)."""
    if network.kind == "distributed":
        port = values_of(connection, network.object, "config.defaultPortConfig").get("config.defaultPortConfig")
        policy = getattr(port, "securityPolicy", None)
        return _policy([_value(policy, "macChanges"), _value(policy, "forgedTransmits")])
    if network.kind == "standard":
        said = [
            getattr(getattr(group.computedPolicy, "security", None), name, None)
            for _host, _switches, groups in _host_networks(connection, site.usable[:1])
            for group in groups
            if group.spec.name == network.name
            for name in ("macChanges", "forgedTransmits")
        ]
        return _policy(said)
    return "unknown"


def _policy(said: Sequence[bool | None]) -> Policy:
    if any(value is False for value in said):
        return "reject"
    return "accept" if said and all(said) else "unknown"


def _value(policy: Any, name: str) -> bool | None:
    found = getattr(getattr(policy, name, None), "value", None)
    return None if found is None else bool(found)


def _isolated(connection: Connection, site: Site, there: Sequence[PortGroup], name: str) -> Iterator[Finding]:
    try:
        network = choose("network", name, there, where=f"at {site.compute.name}", key="isolated")
    except NoChoice as error:
        yield Finding("error", f"network {name}", error.message, error.remedy)
        return
    yield from _reach(network, site)
    open_on = isolation_of(connection, site, network)
    if open_on:
        message = f"it is to isolate machines, and its switch has uplinks on {', '.join(open_on)}"
        remedy = "take a port group of a switch without uplinks, or leave `isolated` out"
        yield Finding("error", f"network {name}", message, remedy)
    elif network.kind != "standard":
        message = "that nothing outside can be reached from it cannot be seen for a network of its kind: be sure of it"
        yield Finding("warning", f"network {name}", message, "its VLAN must end nowhere")


def _own_isolated(connection: Connection, site: Site, cards: Sequence[Card]) -> Iterator[Finding]:
    if all(card.network is not None for card in cards):
        return
    ours = PortGroup(None, OWN_ISOLATED)
    if open_on := isolation_of(connection, site, ours):
        message = f"it is to isolate machines, and has a way out on {', '.join(open_on)}"
        remedy = "rename that port group, or name one that leads nowhere with `isolated` in the options"
        yield Finding("error", f"network {OWN_ISOLATED}", message, remedy)
    if len(site.usable) > 1:
        message = "isolated adapters are in a port group that is made on the host where the machine runs"
        yield Finding("note", "networks", message, "for machines that try out together, name one with `isolated`")


def _host_networks(connection: Connection, hosts: Sequence[Host]) -> list[tuple[Host, list[Any], list[Any]]]:
    """Switches and port groups of each host."""
    paths = ("config.network.vswitch", "config.network.portgroup")
    values = values_of_all(connection, [host.object for host in hosts], *paths)
    return [(host, list(v.get(paths[0], [])), list(v.get(paths[1], []))) for host, v in zip(hosts, values, strict=True)]


def _uplinks(switches: Sequence[Any], name: str) -> list[str]:
    return [str(nic) for switch in switches if switch.name == name for nic in switch.pnic or []]
