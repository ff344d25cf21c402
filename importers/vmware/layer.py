"""The layer that a machine runs on: one snapshot of ours, taken while it is off.

The snapshot's description says what was built on it (purpose, name, networks), so a machine that is only half built is
known for what it is. Reverting gives disks, hardware and marks as they were; removing the snapshot of a reverted
machine merges nothing, removing that of one that ran merges what its guest wrote.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from pyVmomi import vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import REFUSED, explain
from importers.vmware.tasks import wait
from importers.vmware.vm import Snapshot, Vm, look
from pipeline.errors import TargetBusy, TargetUnavailable
from pipeline.place import Purpose
from pipeline.target import Control
from pipeline.wanted import Network

NAME = "failback layer"


@dataclass(frozen=True, slots=True)
class Layer:
    """A snapshot of ours and what was said about it."""

    snapshot: Snapshot
    marker: str
    purpose: Purpose
    name: str
    networks: tuple[Network, ...]


def layer_of(vm: Vm, marker: uuid.UUID) -> Layer | None:
    """Ours, if there is one. Snapshots of others are none of ours."""
    for snapshot in vm.snapshots:
        found = _read(snapshot)
        if found is not None and found.marker == str(marker):
            return found
    return None


def foreign(vm: Vm, marker: uuid.UUID) -> list[str]:
    """Names of the snapshots that are not ours."""
    ours = layer_of(vm, marker)
    return [s.name for s in vm.snapshots if ours is None or s.object != ours.snapshot.object]


def make(
    connection: Connection,
    vm: Vm,
    control: Control,
    marker: uuid.UUID,
    purpose: Purpose,
    name: str,
    networks: tuple[Network, ...],
) -> None:
    """Of a machine that is off. When the answer is lost, the snapshot that is there or not tells."""
    about = f"cannot take a snapshot of {vm.name}"
    described = json.dumps(
        {
            "failback": str(marker),
            "purpose": purpose,
            "name": name,
            "networks": [network.model_dump() for network in networks],
        }
    )
    try:
        task = connection.order(lambda: vm.object.CreateSnapshot_Task(NAME, described, False, False), about)
        wait(connection, task, control, about, machine=vm.object)
    except TargetUnavailable:
        now = look(connection, vm.object)
        if now is None or layer_of(now, marker) is None:
            raise


def revert(connection: Connection, vm: Vm, control: Control, layer: Layer) -> None:
    """Disks and hardware as they were when the snapshot was taken; the snapshot stays. Twice is the same."""
    about = f"cannot revert {vm.name} to its snapshot"
    snapshot = layer.snapshot.object
    task = connection.order(lambda: snapshot.RevertToSnapshot_Task(None, True), about)
    wait(connection, task, control, about, machine=vm.object)


def remove(connection: Connection, vm: Vm, control: Control, layer: Layer) -> None:
    """The snapshot is gone, its disks are one file each again. One that is gone already is gone."""
    others = [s.name for s in vm.snapshots if s.object != layer.snapshot.object]
    if others:
        raise TargetBusy(
            f"{vm.name} has a snapshot that is not ours: {others[0]!r}",
            remedy="remove it in the vSphere client, or wait until the backup job that took it has done so",
        )
    about = f"cannot remove the snapshot of {vm.name}"
    snapshot = layer.snapshot.object
    try:
        task = connection.asked(lambda: snapshot.RemoveSnapshot_Task(False, True))
    except vmodl.fault.ManagedObjectNotFound:
        return
    except REFUSED as fault:
        raise explain(fault, about) from fault
    wait(connection, task, control, about, machine=vm.object)


def _read(snapshot: Snapshot) -> Layer | None:
    try:
        said: Any = json.loads(snapshot.description)
        return Layer(
            snapshot,
            str(said["failback"]),
            said["purpose"],
            str(said["name"]),
            tuple(Network.model_validate(network) for network in said["networks"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
