"""One machine as vSphere shows it, in one question: power, disks, snapshots, and the marks that we left on it.

Marks are advanced settings (`extraConfig`) below `failback.`: they stay with the machine when every host of ours is
lost, and a snapshot that is reverted takes those back that were set after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import REFUSED, explain
from importers.vmware.properties import values_of
from importers.vmware.tasks import wait
from pipeline.errors import TargetBusy, TargetMismatch, TargetUnavailable
from pipeline.target import Control

Parsed = TypeVar("Parsed")
PREFIX = "failback."
DISKS = "disks"
"""Mark: UUIDs of the disks that were made with the machine."""
LOOKS = 5
"""A second apart, for a change whose answer was lost to be seen."""
_PATHS = (
    "name",
    "config.instanceUuid",
    "config.changeVersion",
    "config.extraConfig",
    "config.hardware.device",
    "runtime.powerState",
    "snapshot",
)


@dataclass(frozen=True, slots=True)
class VirtualDisk:
    """`file` is what the machine writes to now, `base` what it was before any snapshot. `uuid` stays through both."""

    key: int
    controller: int
    unit: int
    file: str
    base: str
    uuid: str
    size: int
    mode: str
    raw: bool
    """A raw device mapping."""
    device: Any = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    object: Any = field(compare=False)
    name: str
    description: str
    children: int


@dataclass(frozen=True, slots=True)
class Vm:
    """Values as of one moment."""

    object: Any = field(compare=False)
    name: str
    instance: str
    change: str
    """config.changeVersion."""
    power: str
    """poweredOn, poweredOff, suspended."""
    marks: Mapping[str, str]
    """Without the prefix."""
    disks: tuple[VirtualDisk, ...]
    """By controller and unit."""
    devices: tuple[Any, ...] = field(compare=False, repr=False)
    snapshots: tuple[Snapshot, ...] = ()
    """The whole tree, parents first."""

    @property
    def id(self) -> str:
        return str(self.object._moId)

    @property
    def runs(self) -> bool:
        """Or is suspended: its disks are in use."""
        return self.power != "poweredOff"

    def parsed(self, mark: str, parse: Callable[[str], Parsed], empty: str) -> Parsed:
        """What a mark means; `empty`: its text where there is none. Raises TargetMismatch for one that was changed by
        somebody."""
        text = self.marks.get(mark) or empty
        try:
            return parse(text)
        except (ValueError, TypeError) as error:
            raise TargetMismatch(
                f"{PREFIX}{mark} of the machine {self.name} makes no sense: {text[:80]!r}",
                remedy="somebody changed it: set it back in the vSphere client, or remove the machine and import again",
            ) from error


def look(connection: Connection, machine: Any) -> Vm | None:
    """None: it is gone."""
    try:
        values = values_of(connection, machine, *_PATHS)
    except TargetMismatch:
        return None
    if "name" not in values:
        return None
    devices = tuple(values.get("config.hardware.device") or ())
    settings = {str(option.key): str(option.value) for option in values.get("config.extraConfig") or ()}
    tree = values.get("snapshot")
    return Vm(
        object=machine,
        name=unquote(str(values["name"])),
        instance=str(values.get("config.instanceUuid") or ""),
        change=str(values.get("config.changeVersion") or ""),
        power=str(values.get("runtime.powerState") or ""),
        marks={key.removeprefix(PREFIX): value for key, value in settings.items() if key.startswith(PREFIX) and value},
        disks=disks_of(devices),
        devices=devices,
        snapshots=tuple(_flat(tree.rootSnapshotList if tree is not None else ())),
    )


def put_marks(connection: Connection, machine: Any, control: Control, marks: Mapping[str, str]) -> None:
    """Durable when it returns. An empty value takes a mark away. The same twice is the same."""
    spec = vim.vm.ConfigSpec(extraConfig=options_of(marks))

    def done(vm: Vm) -> bool:
        return all(vm.marks.get(key, "") == value for key, value in marks.items())

    reconfigure(connection, machine, control, spec, f"cannot mark the machine {machine._moId}", done)


def disks_text(vm: Vm) -> str:
    """For the mark DISKS."""
    return " ".join(disk.uuid for disk in vm.disks)


def options_of(marks: Mapping[str, str]) -> list[Any]:
    """Marks as settings of a ConfigSpec."""
    return [vim.option.OptionValue(key=PREFIX + key, value=value) for key, value in marks.items()]


def reconfigure(
    connection: Connection,
    machine: Any,
    control: Control,
    spec: Any,
    about: str,
    done: Callable[[Vm], bool] | None = None,
) -> None:
    """ReconfigVM_Task, to its end: all of the spec, or nothing. `done` tells, when the answer was lost, whether it took
    effect."""
    try:
        task = connection.order(lambda: machine.ReconfigVM_Task(spec), about)
        wait(connection, task, control, about, machine=machine)
    except TargetUnavailable:
        for _ in range(LOOKS if done is not None else 0):
            now = look(connection, machine)
            if now is not None and done is not None and done(now):
                return
            time.sleep(1.0)
        raise


def strangers(vm: Vm) -> list[VirtualDisk]:
    """Disks that we did not make with the machine. Ours are known by the name that we gave their files, or, where
    vSphere moved them and named them anew, by their UUIDs, which are marked."""
    ours = f"-{vm.instance.replace('-', '')[:8].lower()}"
    known = vm.marks.get(DISKS, "").split()
    return [disk for disk in vm.disks if ours not in disk.base.lower() and disk.uuid not in known]


def check_own(vm: Vm) -> None:
    """Raises TargetBusy when there is a disk in it that is none of ours: it would go with the machine."""
    if others := strangers(vm):
        raise TargetBusy(
            f"somebody plugged {others[0].base} into {vm.name}: it would be deleted with the machine",
            remedy="unplug it in the vSphere client (without deleting its files), then run the same command again",
        )


def destroy(connection: Connection, vm: Vm, control: Control) -> None:
    """With its disks. One that is gone already is gone. Raises TargetBusy while something holds it, and when there is a
    disk in it that is none of ours: vSphere would delete that too."""
    check_own(vm)
    about = f"cannot remove the machine {vm.name}"
    try:
        task = connection.asked(vm.object.Destroy_Task)
        wait(connection, task, control, about)
    except vmodl.fault.ManagedObjectNotFound:
        return
    except REFUSED as fault:
        raise explain(fault, about) from fault
    except TargetMismatch:
        if look(connection, vm.object) is not None:
            raise


def disks_of(devices: Sequence[Any]) -> tuple[VirtualDisk, ...]:
    """By controller and unit."""
    found = []
    for device in devices:
        if not isinstance(device, vim.vm.device.VirtualDisk):
            continue
        backing: Any = device.backing
        base: Any = backing
        while getattr(base, "parent", None) is not None:
            base = base.parent
        size = device.capacityInBytes or (device.capacityInKB or 0) << 10
        found.append(
            VirtualDisk(
                key=int(device.key),
                controller=int(device.controllerKey or 0),
                unit=int(device.unitNumber or 0),
                file=str(getattr(backing, "fileName", "")),
                base=str(getattr(base, "fileName", "")),
                uuid=_uuid(getattr(backing, "uuid", "") or ""),
                size=int(size),
                mode=str(getattr(backing, "diskMode", "") or ""),
                raw=isinstance(backing, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo),
                device=device,
            )
        )
    return tuple(sorted(found, key=lambda disk: (disk.controller, disk.unit)))


def _uuid(text: str) -> str:
    return text.replace("-", "").lower()


def _flat(trees: Any) -> list[Snapshot]:
    found: list[Snapshot] = []
    for tree in trees or ():
        below = list(tree.childSnapshotList or ())
        found.append(Snapshot(tree.snapshot, str(tree.name), str(tree.description or ""), len(below)))
        found += _flat(below)
    return found
