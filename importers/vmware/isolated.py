"""A network that leads nowhere, for machines that are tried out.

Either a port group that the mapping names (somebody made it, and we look that it is there), or one of our own: a
standard switch without any uplink on the machine's host, and a port group on it. Ours stays: it costs nothing, is found
by name, and others may be in it. Where we may not make one the adapters' cables are pulled, and that is said.
"""

from __future__ import annotations

import threading
from typing import Any

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.inventory import Site
from importers.vmware.networks import PortGroup, all_networks, backing_of, find_network
from importers.vmware.options import VmwareOptions
from importers.vmware.properties import values_of
from importers.vmware.vm import Vm
from importers.vmware.wiring import OWN_ISOLATED, isolation_of
from pipeline.errors import TargetError
from pipeline.target import Control

NAME = OWN_ISOLATED
PORTS = 128
LOOKS = 10
"""A second apart, for a network that was just made."""


def isolated_network(
    connection: Connection, site: Site, options: VmwareOptions, vm: Vm, control: Control
) -> PortGroup | None:
    """None: there is none, and none can be made. Raises NoChoice for one that the mapping names and that is not there,
    TargetError for one that has an uplink, on whatever host the machine may be moved to."""
    if options.isolated:
        return _without_uplink(connection, site, find_network(connection, site, options.isolated))
    host = values_of(connection, vm.object, "runtime.host").get("runtime.host")
    if host is None:
        return None
    try:
        _make(connection, host)
    except (vim.fault.NoPermission, vim.fault.RestrictedVersion, vmodl.fault.NotSupported) as fault:
        why = explain(fault, f"cannot make a network without uplink for {vm.name}")
        control.tell(f"{why.message}; the cables of its adapters are pulled (name one with `isolated` in the options)")
        return None
    pause = threading.Event()
    for _ in range(LOOKS):
        for network in all_networks(connection, site):
            here = not network.hosts or str(host._moId) in network.hosts
            if network.name == NAME and network.kind == "standard" and here:
                return _without_uplink(connection, site, network)
        control.check()
        pause.wait(1.0)  # vCenter learns of it from the host
    control.tell(
        f"the network {NAME} that was made for {vm.name} does not appear; the cables of its adapters are pulled"
    )
    return None


def alone(connection: Connection, site: Site, options: VmwareOptions, vm: Vm, control: Control) -> tuple[Any, bool]:
    """What an isolated adapter is plugged into, and whether its cable is. vSphere has no adapter that is in no network:
    where there is no isolated one it is in any other with its cable pulled."""
    apart = isolated_network(connection, site, options, vm, control)
    anywhere = apart or next(iter(all_networks(connection, site)), None)
    if anywhere is None:
        raise TargetError(
            f"{site.compute.name} has no network for the adapters of {vm.name}", remedy="make a port group there"
        )
    return backing_of(connection, anywhere), apart is not None


def _without_uplink(connection: Connection, site: Site, network: PortGroup) -> PortGroup:
    """Looked at again each time: since the preflight somebody may have given the switch one."""
    if open_on := isolation_of(connection, site, network):
        raise TargetError(
            f"the network {network.name} is to isolate machines, and its switch has uplinks on {', '.join(open_on)}",
            remedy="take the uplinks off it, or name a port group without a way out with `isolated` in the options",
        )
    return network


def _make(connection: Connection, host: Any) -> None:
    """Once: what is there already is looked at, not made again."""
    system = values_of(connection, host, "configManager.networkSystem")["configManager.networkSystem"]
    info = connection.ask(lambda: system.networkInfo, "cannot read the networks of the host")
    switches = {str(switch.name): switch for switch in info.vswitch or ()}
    switch = switches.get(NAME)
    if switch is not None and switch.pnic:
        raise TargetError(
            f"the switch {NAME} has an uplink ({', '.join(map(str, switch.pnic))}): nothing is isolated on it",
            remedy="take the uplink off it, or name an isolated port group with `isolated` in the options",
        )
    group = next((group for group in info.portgroup or () if str(group.spec.name) == NAME), None)
    if group is not None and str(group.spec.vswitchName) != NAME:
        raise TargetError(
            f"the port group {NAME} of the host is on the switch {group.spec.vswitchName}, which is none of ours",
            remedy="rename it, or name an isolated port group with `isolated` in the options",
        )
    about = f"cannot make the switch {NAME}"
    if switch is None:
        _once(
            connection,
            lambda: system.AddVirtualSwitch(NAME, vim.host.VirtualSwitch.Specification(numPorts=PORTS)),
            about,
        )
    if group is None:
        spec = vim.host.PortGroup.Specification(name=NAME, vlanId=0, vswitchName=NAME, policy=vim.host.NetworkPolicy())
        _once(connection, lambda: system.AddPortGroup(spec), about)


def _once(connection: Connection, order: Any, about: str) -> None:
    try:
        connection.asked(order)
    except vim.fault.AlreadyExists:
        return
    except (vim.fault.NoPermission, vim.fault.RestrictedVersion, vmodl.fault.NotSupported):
        raise
    except (REFUSED, *CUT) as fault:
        raise explain(fault, about) from fault
