"""What speaks against taking over a machine that exists: disks that no snapshot holds, and others at work on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.properties import values_of
from importers.vmware.tasks import look
from pipeline.finding import Finding
from pipeline.units import count

_BACKUP = ("veeam backup temporary", "nbu_", "netbackup", "commvault", "rubrik", "cohesity", "nakivo", "backup")
"""How the snapshots of backup programs begin, or what is in their names, in small letters."""
_PATHS = (
    "name",
    "snapshot",
    "config.hardware.device",
    "config.template",
    "config.keyId",
    "config.ftInfo",
    "runtime.consolidationNeeded",
    "runtime.connectionState",
    "recentTask",
    "disabledMethod",
)
_NEEDED = ("ReconfigVM_Task", "CreateSnapshot_Task", "PowerOnVM_Task")


def adoption_findings(connection: Connection, machine: Any, ours: Sequence[str] = ()) -> list[Finding]:
    """Why the machine cannot be taken over, or not now. `ours`: names of snapshots that are failback's."""
    values = values_of(connection, machine, *_PATHS)
    name = f"machine {values.get('name', machine._moId)}"
    found = list(_disks(values.get("config.hardware.device", [])))
    foreign = [s for s in _snapshots(values.get("snapshot")) if s not in ours]
    if foreign:
        backup = any(word in snapshot.lower() for snapshot in foreign for word in _BACKUP)
        message = f"it has snapshots that are not ours: {', '.join(map(repr, foreign[:5]))}"
        if backup:
            message += "; a backup seems to run, or to have left one"
        found.append(Finding("error", name, message, "let the backup end, then remove them (their changes are merged)"))
    if values.get("runtime.consolidationNeeded"):
        message = "its disks need consolidation: a snapshot was removed only half"
        found.append(Finding("error", name, message, "run `Consolidate` on it in the vSphere client"))
    if values.get("runtime.connectionState") not in (None, "connected"):
        message = f"vCenter calls it {values['runtime.connectionState']}"
        found.append(Finding("error", name, message, "bring its host back, or remove it from the inventory"))
    if values.get("config.template"):
        found.append(Finding("error", name, "it is a template", "convert it to a machine first"))
    if values.get("config.keyId") is not None:
        message = "it is encrypted: a worker cannot write its disks"
        found.append(Finding("error", name, message, "decrypt it, or bring the machine back as a new one"))
    if values.get("config.ftInfo") is not None:
        found.append(Finding("error", name, "it is fault tolerant", "turn fault tolerance off first"))
    running = _running(connection, values.get("recentTask", []))
    if running:
        message = f"{count(running, 'task')} of vSphere work on it"
        found.append(Finding("error", name, message, "wait until that is done"))
    elif barred := [m for m in _NEEDED if m in (values.get("disabledMethod") or [])]:
        message = f"vSphere does not allow {', '.join(barred)} on it now: a backup or another manager may hold it"
        found.append(Finding("warning", name, message, "end that, or wait for it"))
    return found


def _disks(devices: Sequence[Any]) -> Iterator[Finding]:
    kinds = vim.vm.device.VirtualDisk
    buses: dict[Any, Any] = {
        device.key: device for device in devices if isinstance(device, vim.vm.device.VirtualSCSIController)
    }
    number = 0
    for device in devices:
        if not isinstance(device, kinds):
            continue
        subject = f"disk {number}"
        backing: Any = device.backing
        number += 1
        if isinstance(backing, (kinds.RawDiskMappingVer1BackingInfo, kinds.RawDiskVer2BackingInfo)):
            message = "it is a raw device (RDM)"
            yield Finding("error", subject, message, "copy it to a virtual disk, or bring it back as a new one")
            continue
        if "independent" in str(getattr(backing, "diskMode", "")):
            message = f"its mode is {backing.diskMode}: no snapshot holds it, so a rehearsal would change it for good"
            yield Finding("error", subject, message, "set it to `dependent` in the machine's settings")
        controller = buses.get(device.controllerKey)
        shared = str(getattr(controller, "sharedBus", "noSharing") or "noSharing") != "noSharing"
        if shared or str(getattr(backing, "sharing", "")) == "sharingMultiWriter":
            message = "other machines may write it too (shared bus or multi-writer)"
            yield Finding("error", subject, message, "end the sharing, or bring it back as a new disk")


def _snapshots(info: Any) -> list[str]:
    names: list[str] = []
    waiting = list(info.rootSnapshotList) if info is not None else []
    while waiting:
        tree = waiting.pop()
        names.append(str(tree.name))
        waiting += tree.childSnapshotList or []
    return sorted(names)


def _running(connection: Connection, tasks: Sequence[Any]) -> int:
    """How many; those that vSphere has forgotten meanwhile are over."""
    return sum(not look(connection, task).over for task in tasks)
