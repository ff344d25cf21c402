"""The least that failback's role must hold, and whether the user has it where it is needed.

Rights are looked at per object: a role at the root says nothing when an object below has another one. Nothing of this
list was ever tried on a real vCenter. `method` names the call whose privilege stands in VMware's own description of the
API (pyvmomi carries it, and a test compares); the others, with `method` empty, follow from what a call's arguments do,
and are known from practice alone: they are the ones to look at first when a role is too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.inventory import Entity
from importers.vmware.properties import values_of
from pipeline.finding import Finding

Where = Literal["folder", "pool", "datastore", "network", "cluster", "root"]
For = Literal["always", "worker", "attributes", "isolation", "cleaning"]


@dataclass(frozen=True, slots=True)
class Privilege:
    """One right, by its id in the API."""

    id: str
    on: Where
    purpose: For = "always"
    method: str = ""
    """TYPE.METHOD, as pyvmomi calls them; empty: unverified."""


ROLE = (
    Privilege("VApp.Import", "pool", method="ResourcePool.ImportVApp"),
    Privilege("Resource.AssignVMToPool", "pool"),
    Privilege("VirtualMachine.Inventory.Create", "folder", method="Folder.CreateVm"),
    Privilege("VirtualMachine.Inventory.Delete", "folder"),
    Privilege("VirtualMachine.Config.AddNewDisk", "folder"),
    Privilege("VirtualMachine.Config.AddExistingDisk", "folder"),
    Privilege("VirtualMachine.Config.AddRemoveDevice", "folder"),
    Privilege("VirtualMachine.Config.RemoveDisk", "folder"),
    Privilege("VirtualMachine.Config.EditDevice", "folder"),
    Privilege("VirtualMachine.Config.Settings", "folder"),
    Privilege("VirtualMachine.Config.AdvancedConfig", "folder"),
    Privilege("VirtualMachine.Config.Annotation", "folder"),
    Privilege("VirtualMachine.Config.CPUCount", "folder"),
    Privilege("VirtualMachine.Config.Memory", "folder"),
    Privilege("VirtualMachine.Config.Rename", "folder"),
    Privilege("VirtualMachine.Interact.PowerOn", "folder", method="VirtualMachine.PowerOn"),
    Privilege("VirtualMachine.Interact.PowerOff", "folder", method="VirtualMachine.PowerOff"),
    Privilege("VirtualMachine.Interact.DeviceConnection", "folder"),
    Privilege("VirtualMachine.Interact.AnswerQuestion", "folder", method="VirtualMachine.Answer"),
    Privilege("VirtualMachine.Interact.CreateScreenshot", "folder", method="VirtualMachine.CreateScreenshot"),
    Privilege("VirtualMachine.State.CreateSnapshot", "folder", method="VirtualMachine.CreateSnapshot"),
    Privilege("VirtualMachine.State.RevertToSnapshot", "folder", method="vm.Snapshot.Revert"),
    Privilege("VirtualMachine.State.RemoveSnapshot", "folder", method="vm.Snapshot.Remove"),
    Privilege("Datastore.AllocateSpace", "datastore"),
    Privilege("Datastore.Browse", "datastore"),
    Privilege("Datastore.FileManagement", "datastore"),
    Privilege("Network.Assign", "network"),
    Privilege("Host.Inventory.EditCluster", "cluster", "worker", method="ComputeResource.ReconfigureEx"),
    Privilege("Host.Config.Network", "cluster", "isolation", method="host.NetworkSystem.AddPortGroup"),
    Privilege("Global.SetCustomField", "folder", "attributes"),
    Privilege("Global.ManageCustomFields", "root", "attributes", method="CustomFieldsManager.AddFieldDefinition"),
    Privilege("Global.CancelTask", "root", "cleaning"),
    Privilege("Sessions.TerminateSession", "root", "cleaning"),
)
WITHOUT: dict[For, str] = {
    "worker": "DRS may move the worker while it holds disks: keep it on its host by a rule of your own",
    "isolation": "rehearsals need a port group that you make: name it with `isolated`",
    "cleaning": "what a command that died left is taken away only after vSphere's own time limits",
}
"""What is missed without the rights for a purpose; the others are errors."""


def needed(purposes: Iterable[For]) -> list[Privilege]:
    wanted = {"always", *purposes}
    return [privilege for privilege in ROLE if privilege.purpose in wanted]


def check_privileges(
    connection: Connection, objects: Sequence[tuple[Where, Entity]], purposes: Iterable[For]
) -> Iterator[Finding]:
    """What the user may not do on these objects; one finding for an object and how much it matters."""
    manager = connection.content.authorizationManager
    if manager is None:
        return
    known = {str(p.privId) for p in values_of(connection, manager, "privilegeList").get("privilegeList", [])}
    wanted = needed(purposes)
    for where, thing in objects:
        there = [p for p in wanted if p.on == where and (not known or p.id in known)]
        try:
            missing = _missing(connection, manager, thing.object, there)
        except (vmodl.fault.NotSupported, vmodl.fault.MethodNotFound):
            message = f"the rights on {thing.name} cannot be looked at here"
            yield Finding("note", "rights", message)
            return
        except (REFUSED, *CUT) as fault:
            raise explain(fault, f"cannot look at the rights on {thing.name}") from fault
        yield from _told(where, thing, missing)


def _missing(connection: Connection, manager: Any, thing: Any, wanted: Sequence[Privilege]) -> list[Privilege]:
    if not wanted:
        return []
    ids = [p.id for p in wanted]
    answer = connection.asked(lambda: manager.HasPrivilegeOnEntities([thing], connection.session, ids))
    granted = {str(a.privId) for one in answer for a in one.privAvailability if a.isGranted}
    return [p for p in wanted if p.id not in granted]


def _told(where: Where, thing: Entity, missing: Sequence[Privilege]) -> Iterator[Finding]:
    shown = f"the {where} {thing.name}" if where != "root" else "the root of the inventory"
    hard = [p.id for p in missing if p.purpose not in WITHOUT]
    if hard:
        message = f"the user lacks {', '.join(hard)} on {shown}"
        remedy = "add them to the role that the user has there (with `propagate to children`)"
        yield Finding("error", "rights", message, remedy)
    for purpose, loss in WITHOUT.items():
        soft = [p.id for p in missing if p.purpose == purpose]
        if soft:
            yield Finding("warning", "rights", f"the user lacks {', '.join(soft)} on {shown}", loss)


def root_of(connection: Connection) -> Entity:
    """Where rights that belong to no object are looked at."""
    return Entity(connection.content.rootFolder, "/")
