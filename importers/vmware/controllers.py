"""Controllers of a virtual machine, and the places for disks on them.

Numbers are those of the configuration maximums of vSphere 6.5 to 8: four controllers of each kind (IDE: two channels),
a SCSI controller itself is unit 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vim

from pipeline.finding import Finding

Bus = Literal["pvscsi", "lsisas", "lsilogic", "sata", "nvme", "ide"]

MOST_DISK = 62 << 40
"""Bytes of a virtual disk."""
CONTROLLERS = 4
_SCSI_ITSELF = 7
_FIRST_KEY: dict[Bus, int] = {
    "pvscsi": 1000,
    "lsisas": 1000,
    "lsilogic": 1000,
    "sata": 15000,
    "nvme": 31000,
    "ide": 200,
}
"""As vSphere numbers them; IDE controllers are there from the beginning."""
_SCSI: tuple[Bus, ...] = ("pvscsi", "lsisas", "lsilogic")
_UNITS: dict[Bus, tuple[int, ...]] = {
    "pvscsi": tuple(unit for unit in range(16) if unit != _SCSI_ITSELF),
    "lsisas": tuple(unit for unit in range(16) if unit != _SCSI_ITSELF),
    "lsilogic": tuple(unit for unit in range(16) if unit != _SCSI_ITSELF),
    "sata": tuple(range(30)),
    "nvme": tuple(range(15)),
    "ide": (0, 1),
}
_MANY = tuple(unit for unit in range(65) if unit != _SCSI_ITSELF)
_MANY_VERSION = 14
"""Hardware version from which a PVSCSI controller has 64 places."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one disk is plugged in."""

    number: int
    """Of the disk."""
    bus: Bus
    controller: int
    """Of its kind (SCSI kinds are numbered together), from 0."""
    unit: int
    key: int
    """Of the controller device."""


def slots_of(buses: Mapping[int, Bus], version: int = 0) -> tuple[tuple[Slot, ...], list[Finding]]:
    """Places for disks by number, ascending: the first of a kind of bus is the first that firmware sees there.

    `version`: hardware version, 0 when it is not known. A disk without place is an error among the findings.
    """
    slots: list[Slot] = []
    findings: list[Finding] = []
    controllers: dict[Bus, list[int]] = {}
    """Numbers of the controllers of a bus."""
    taken: dict[tuple[Bus, int], int] = {}
    """Places of a controller that are used."""
    for number, bus in sorted(buses.items()):
        places = _MANY if bus == "pvscsi" and version >= _MANY_VERSION else _UNITS[bus]
        own = controllers.setdefault(bus, [])
        if not own or taken[bus, own[-1]] == len(places):
            there = sum(len(numbers) for kind, numbers in controllers.items() if _family(kind) == _family(bus))
            if there == (2 if bus == "ide" else CONTROLLERS):
                room = f"the machine has no room for it on {bus}: every controller is full"
                findings.append(Finding("error", f"disk {number}", room, "put some disks on another `bus:`"))
                continue
            own.append(there)
            taken[bus, there] = 0
        controller = own[-1]
        unit = places[taken[bus, controller]]
        taken[bus, controller] += 1
        slots.append(Slot(number, bus, controller, unit, _FIRST_KEY[bus] + controller))
    return tuple(slots), findings


def controllers_of(slots: tuple[Slot, ...]) -> list[Any]:
    """The controller devices that these places need; IDE ones are there by themselves."""
    wanted = {slot.key: slot for slot in slots if slot.bus != "ide"}
    return [_controller(slot) for _key, slot in sorted(wanted.items())]


def _controller(slot: Slot) -> Any:
    device = vim.vm.device
    common = {"key": slot.key, "busNumber": slot.controller}
    if slot.bus == "sata":
        return device.VirtualAHCIController(**common)
    if slot.bus == "nvme":
        return device.VirtualNVMEController(**common)
    kind = {
        "pvscsi": device.ParaVirtualSCSIController,
        "lsisas": device.VirtualLsiLogicSASController,
        "lsilogic": device.VirtualLsiLogicController,
    }[slot.bus]
    return kind(**common, sharedBus="noSharing")


def _family(bus: Bus) -> str:
    return "scsi" if bus in _SCSI else bus
