"""What makes the disks of a stage trusted without reading them.

After our last call we note: each disk's UUID and file, the machine's `changeVersion`, and the newest event of a
power-on. While all of these are as they were, and there is no snapshot, nobody else wrote to the disks by way of this
machine. The note lies in our own journal, for a note on the machine would change its version; without it the disks are
hashed again. (What a person does with the files themselves on a datastore is not seen; a read-back at the next full
staging is.) Whether every way to write raises `changeVersion` is unverified on ESXi; the events are the second witness.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.vm import Vm
from pipeline.target import Journal

NOTE = "guard"
_POWER_ON = ("VmPoweredOnEvent", "DrsVmPoweredOnEvent", "VmStartingEvent", "VmResumingEvent")


def note(connection: Connection, vm: Vm, journal: Journal, token: str = "") -> str:
    """Remember the machine as it is now, right after our own last change to it. The token stands for the stage that is
    trusted: a new one, unless it is still the same stage."""
    noted = {"token": token or secrets.token_hex(8), **_seen(connection, vm)}
    journal.note(NOTE, json.dumps(noted, sort_keys=True))
    return str(noted["token"])


def drop(journal: Journal) -> None:
    """Before anything of ours changes the machine: until it is noted again, nothing is trusted."""
    journal.note(NOTE, "")


def token_of(journal: Journal) -> str:
    """Of what is noted; empty: nothing is."""
    noted = journal.get(NOTE)
    return str(json.loads(noted)["token"]) if noted else ""


def machine_of(journal: Journal) -> str:
    """Id of the machine that is noted."""
    noted = journal.get(NOTE)
    return str(json.loads(noted)["machine"]) if noted else ""


def broken(connection: Connection, vm: Vm, journal: Journal, token: str) -> str:
    """Why the disks must be hashed again; empty: they need not."""
    noted = journal.get(NOTE)
    if not noted or not token:
        return "what this host noted of the machine is not there"
    if vm.snapshots:
        return f"there is a snapshot of {vm.name} that is not ours: {vm.snapshots[0].name!r}"
    was, now = json.loads(noted), _seen(connection, vm)
    if was["token"] != token:
        return f"the disks of {vm.name} were staged again since"
    if was["machine"] != now["machine"]:
        return f"{vm.name} is another machine than the one that was staged"
    if was["disks"] != now["disks"]:
        return f"the disks of {vm.name} are not those that were staged"
    if was["started"] != now["started"]:
        return f"{vm.name} was switched on since it was staged"
    if was["change"] != now["change"]:
        return f"somebody changed {vm.name} since it was staged"
    return ""


def same_disks(vm: Vm, journal: Journal) -> bool:
    """Whether the disks below a layer are those that were noted: nobody put others in their place meanwhile."""
    noted = journal.get(NOTE)
    if not noted:
        return False
    was = json.loads(noted)["disks"]
    return bool(was == {str(disk.key): [disk.uuid, disk.base, disk.size] for disk in vm.disks})


def _seen(connection: Connection, vm: Vm) -> dict[str, Any]:
    return {
        "machine": vm.id,
        "change": vm.change,
        "started": newest_start(connection, vm),
        "disks": {str(disk.key): [disk.uuid, disk.file, disk.size] for disk in vm.disks},
    }


def newest_start(connection: Connection, vm: Vm) -> int:
    """Key of the newest event of its start; 0: there is none."""
    event = vim.event
    spec = event.EventFilterSpec(
        entity=event.EventFilterSpec.ByEntity(entity=vm.object, recursion="self"), eventTypeId=_ids()
    )
    manager = connection.content.eventManager
    if manager is None:
        return 0
    found = connection.ask(lambda: manager.QueryEvents(spec), f"cannot read the events of {vm.name}")
    return max((int(one.key) for one in found or () if _starts(one)), default=0)


def _ids() -> list[str]:
    return [f"vim.event.{name}" for name in _POWER_ON]


def _starts(found: Any) -> bool:
    """Asked again here, for not every server filters."""
    return type(found).__name__.rpartition(".")[2] in _POWER_ON
