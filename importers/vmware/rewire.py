"""Adapters of a machine that is built: which network each is in, and moving one to another while the machine runs.

Adapters are numbered by their devices' keys, which vSphere gives in the order in which they were added (unverified on a
real one). That an adapter keeps its address and its place in the guest when only its backing changes, as in the vSphere
client, is the API's `edit` of a device; how long the guest sees the cable pulled meanwhile is unverified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.find import NETWORKS, networks_text
from importers.vmware.inventory import Site
from importers.vmware.isolated import alone
from importers.vmware.networks import PortGroup, all_networks, backing_of, find_network
from importers.vmware.options import VmwareOptions
from importers.vmware.vm import Vm, options_of, reconfigure
from importers.vmware.wiring import OWN_ISOLATED
from pipeline.errors import TargetError
from pipeline.target import Control
from pipeline.wanted import Network

_CARD = vim.vm.device.VirtualEthernetCard


def wired(connection: Connection, site: Site, options: VmwareOptions, vm: Vm, adapter: int) -> str | None:
    """Name of the network that the adapter is in; None: in none that anything outside reaches. Raises TargetError."""
    return _wired(all_networks(connection, site), options, vm, _card(vm, adapter))


def rewire(
    connection: Connection,
    site: Site,
    options: VmwareOptions,
    vm: Vm,
    adapter: int,
    network: str | None,
    networks: Sequence[Network],
    control: Control,
) -> None:
    """Nothing when it is there. `networks`: those that the machine is in now, as its marks say. The move and what the
    marks say of it are one change. Raises NoChoice, TargetError."""
    device = _card(vm, adapter)
    now = _wired(all_networks(connection, site), options, vm, device)
    wanted = [n.model_copy(update={"name": network}) if i == adapter else n for i, n in enumerate(networks)]
    if now == network and wanted == list(networks):
        return
    if network is None:
        backing, plugged = alone(connection, site, options, vm, control)
    else:
        backing, plugged = backing_of(connection, find_network(connection, site, network)), True
    device.backing = backing
    # `connected` is a running machine's; another one goes by `startConnected` when it starts.
    device.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        startConnected=plugged, connected=plugged and vm.runs, allowGuestControl=plugged
    )
    spec = vim.vm.ConfigSpec(
        deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)],
        extraConfig=options_of({NETWORKS: networks_text(wanted)}),
    )

    def done(seen: Vm) -> bool:
        return seen.marks.get(NETWORKS) == networks_text(wanted)

    about = f"cannot move adapter {adapter} of {vm.name} to {network or 'no network'}"
    reconfigure(connection, vm.object, control, spec, about, done)


def _card(vm: Vm, adapter: int) -> Any:
    cards = sorted((device for device in vm.devices if isinstance(device, _CARD)), key=lambda card: int(card.key))
    if adapter >= len(cards):
        raise TargetError(
            f"{vm.name} has {len(cards)} network adapters: there is no number {adapter}",
            remedy="they are counted from 0; correct `adapter` in the plan's traffic step",
        )
    return cards[adapter]


def _wired(there: Sequence[PortGroup], options: VmwareOptions, vm: Vm, card: Any) -> str | None:
    network = _network(there, card)
    if not _plugged(vm, card):
        return None
    if network is None:
        raise TargetError(
            f"an adapter of {vm.name} is in a network that is not seen here",
            remedy="give the user System.View on its networks, or look at the machine in the vSphere client",
        )
    return None if network.name in (OWN_ISOLATED, options.isolated) else network.name


def _plugged(vm: Vm, card: Any) -> bool:
    if card.connectable is None:
        return True
    return bool(card.connectable.connected if vm.runs else card.connectable.startConnected)


def _network(there: Sequence[PortGroup], card: Any) -> PortGroup | None:
    """Known by its id where the backing tells it: names change."""
    backing = card.backing
    if isinstance(backing, _CARD.DistributedVirtualPortBackingInfo):
        key = str(backing.port.portgroupKey or "")
        return next((n for n in there if n.kind == "distributed" and n.key == key), None)
    if isinstance(backing, _CARD.OpaqueNetworkBackingInfo):
        return next((n for n in there if n.kind == "opaque" and n.key == str(backing.opaqueNetworkId)), None)
    same = [n for n in there if n.kind == "standard" and n.object == getattr(backing, "network", None)]
    name = str(getattr(backing, "deviceName", "") or "")
    return next(iter(same), None) or next((n for n in there if n.kind == "standard" and n.name == name), None)
