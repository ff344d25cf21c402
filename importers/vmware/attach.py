"""Disks of a machine that is off, plugged into the worker and out again.

They stay the machine's: its own configuration is not touched, and while the worker has them vSphere's locks keep the
machine from being switched on. The worker gets them as independent disks, so that no snapshot of the worker comes
between; those that it shall only read as nonpersistent ones: a write of the worker would go to a redo log of its own,
which is gone when the disk is unplugged (vSphere API, VirtualDiskMode; which locks that takes is unverified on ESXi).
Unplugging never deletes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.vm import VirtualDisk, Vm, look, reconfigure
from pipeline.errors import TargetBusy, TargetMismatch
from pipeline.target import Control

UNITS = tuple(unit for unit in range(16) if unit != 7)
"""Of a SCSI controller; 7 is itself."""
CONTROLLERS = 4
PLUGGED = "independent_persistent"
READ_ONLY = "independent_nonpersistent"
MODES = (PLUGGED, READ_ONLY)
"""Of what is plugged in; the worker's own disk has another."""
_FIRST_CONTROLLER, _FIRST_DISK = -101, -201


def attach(
    connection: Connection, worker: Vm, control: Control, files: Sequence[str], seeds: Sequence[str] = ()
) -> None:
    """In one change; `seeds` only to be read. Those that it has stay. Raises TargetBusy when it is full or another
    machine uses one."""
    there = {disk.file for disk in worker.disks}
    wanted = dict.fromkeys(seeds, READ_ONLY) | dict.fromkeys(files, PLUGGED)
    missing = [file for file in wanted if file not in there]
    if not missing:
        return
    changes: list[Any] = []
    places = _places(worker, len(missing), changes)
    device = vim.vm.device
    for number, (file, (controller, unit)) in enumerate(zip(missing, places, strict=True)):
        backing = device.VirtualDisk.FlatVer2BackingInfo(fileName=file, diskMode=wanted[file])
        disk = device.VirtualDisk(key=_FIRST_DISK - number, controllerKey=controller, unitNumber=unit, backing=backing)
        changes.append(device.VirtualDeviceSpec(operation="add", device=disk))
    spec = vim.vm.ConfigSpec(deviceChange=changes)
    about = f"cannot plug disks into the worker {worker.name}"
    reconfigure(connection, worker.object, control, spec, about, lambda now: wanted.keys() <= _files(now))


def detach(connection: Connection, worker: Any, control: Control, files: Collection[str]) -> None:
    """The worker no longer has any of the files; they stay on their datastores. Twice is the same."""
    now = look(connection, worker)
    if now is None:
        return
    disks = [disk for disk in now.disks if disk.file in files]
    if not disks:
        return
    changes = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk.device) for disk in disks]
    spec = vim.vm.ConfigSpec(deviceChange=changes)
    about = f"cannot unplug disks from the worker {now.name}"
    reconfigure(connection, worker, control, spec, about, lambda then: not set(files) & _files(then))


def plugged(connection: Connection, worker: Any, file: str) -> VirtualDisk:
    """The disk as the worker has it; its UUID is the number by which the worker's system knows it. Raises
    TargetMismatch when it is not plugged in."""
    now = look(connection, worker)
    for disk in now.disks if now else ():
        if disk.file == file and disk.uuid:
            return disk
    raise TargetMismatch(
        f"{file} is not plugged into the worker", remedy="somebody unplugged it: run the same command again"
    )


def _files(vm: Vm) -> set[str]:
    return {disk.file for disk in vm.disks}


def _places(worker: Vm, wanted: int, changes: list[Any]) -> list[tuple[int, int]]:
    """Free (controller key, unit) of PVSCSI controllers; those that are missing are added to `changes`."""
    kind = vim.vm.device.ParaVirtualSCSIController
    scsi = [d for d in worker.devices if isinstance(d, vim.vm.device.VirtualSCSIController)]
    taken = {(int(d.controllerKey or 0), int(d.unitNumber or 0)) for d in worker.devices if d.controllerKey}
    own = sorted((d for d in scsi if isinstance(d, kind)), key=lambda d: int(d.busNumber))
    free = [(int(d.key), unit) for d in own for unit in UNITS if (int(d.key), unit) not in taken]
    buses = [bus for bus in range(CONTROLLERS) if bus not in {int(d.busNumber) for d in scsi}]
    number = 0
    while len(free) < wanted and buses:
        key = _FIRST_CONTROLLER - number
        controller = kind(key=key, busNumber=buses.pop(0), sharedBus="noSharing")
        changes.append(vim.vm.device.VirtualDeviceSpec(operation="add", device=controller))
        free += [(key, unit) for unit in UNITS]
        number += 1
    if len(free) < wanted:
        raise TargetBusy(
            f"the worker {worker.name} has no room for {wanted} more disks",
            remedy="wait until other machines are staged, or unplug what was forgotten there",
        )
    return free[:wanted]
