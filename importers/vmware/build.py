"""A staged machine becomes the one that was asked for: name, processors, memory, firmware, adapters, serial port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyVmomi import vim

from importers.vmware.cards import device_of
from importers.vmware.connection import Connection
from importers.vmware.files import split_path
from importers.vmware.find import BUILT, NETWORKS, networks_text
from importers.vmware.inventory import Site
from importers.vmware.isolated import alone
from importers.vmware.networks import backing_of, find_network
from importers.vmware.observe import serial_of
from importers.vmware.options import VmwareOptions
from importers.vmware.plan import choose
from importers.vmware.properties import values_of
from importers.vmware.spec import tried_name
from importers.vmware.vm import Vm, options_of
from pipeline.errors import TargetError
from pipeline.place import Purpose
from pipeline.target import Control
from pipeline.wanted import Network, Wanted

_SERIAL_KEY = 9000


def build_spec(
    connection: Connection,
    site: Site,
    options: VmwareOptions,
    vm: Vm,
    wanted: Wanted,
    purpose: Purpose,
    control: Control,
) -> Any:
    """One change, all of it or nothing, that may be made twice. Makes the isolated network when one is needed."""
    if purpose == "rehearsal" and (named := [network.name for network in wanted.networks if network.name]):
        raise TargetError(
            f"a rehearsal of {vm.name} would be in the network {named[0]}",
            remedy="rehearse with isolated adapters alone",
        )
    choice = choose(connection, site, (), wanted, options)
    changes = [_removed(device) for device in vm.devices if isinstance(device, vim.vm.device.VirtualEthernetCard)]
    plugs = _plugs(connection, site, options, vm, wanted.networks, control)
    for number, (card, (backing, connected)) in enumerate(zip(choice.cards, plugs, strict=True)):
        changes.append(_added(device_of(-100 - number, card, backing, connected=connected)))
    changes += _serial(connection, options, vm, purpose)
    return vim.vm.ConfigSpec(
        name=tried_name(wanted.name) if purpose == "rehearsal" else wanted.name,
        numCPUs=choice.cpus,
        numCoresPerSocket=choice.cores,
        memoryMB=choice.memory >> 20,
        guestId=choice.guest,
        firmware=choice.firmware,
        bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=choice.secure_boot) if choice.firmware == "efi" else None,
        deviceChange=changes,
        extraConfig=options_of({BUILT: purpose, NETWORKS: networks_text(wanted.networks)}),
    )


def _plugs(
    connection: Connection,
    site: Site,
    options: VmwareOptions,
    vm: Vm,
    networks: Sequence[Network],
    control: Control,
) -> list[tuple[Any, bool]]:
    """One for each adapter: what it is in, and whether its cable is plugged in."""
    plugs: list[tuple[Any, bool]] = []
    apart: tuple[Any, bool] | None = None
    for network in networks:
        if network.name is not None:
            plugs.append((backing_of(connection, find_network(connection, site, network.name)), True))
            continue
        apart = apart or alone(connection, site, options, vm, control)
        plugs.append(apart)
    return plugs


def _serial(connection: Connection, options: VmwareOptions, vm: Vm, purpose: Purpose) -> list[Any]:
    wanted = options.serial == "always" or (options.serial == "rehearsal" and purpose == "rehearsal")
    if not wanted or serial_of(vm.devices):
        return []
    home = str(values_of(connection, vm.object, "config.files.vmPathName")["config.files.vmPathName"])
    datastore, path = split_path(home)
    device = vim.vm.device
    file = f"[{datastore}] {path.rpartition('/')[0]}/serial.log"
    backing = device.VirtualSerialPort.FileBackingInfo(fileName=file)
    connectable = device.VirtualDevice.ConnectInfo(startConnected=True, connected=False, allowGuestControl=False)
    port = device.VirtualSerialPort(key=-_SERIAL_KEY, backing=backing, connectable=connectable, yieldOnPoll=True)
    return [_added(port)]


def _added(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def _removed(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="remove", device=device)
