"""Machines of the inventory: by our marker, which is their instance UUID, or by name."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any
from urllib.parse import unquote

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.inventory import Entity
from importers.vmware.properties import children
from pipeline.errors import TargetMismatch


def find_machine(connection: Connection, marker: uuid.UUID) -> Any | None:
    """The vim.VirtualMachine whose instance UUID is `marker`. Raises TargetMismatch when there are two."""
    index = connection.content.searchIndex
    found = list(
        connection.ask(
            lambda: index.FindAllByUuid(None, str(marker), True, True), f"cannot look for machines at {connection.name}"
        )
        or []
    )
    if len(found) > 1:
        ids = ", ".join(str(machine._moId) for machine in found)
        raise TargetMismatch(
            f"{len(found)} machines at {connection.name} have the instance UUID {marker}: {ids}",
            remedy="one is a copy that somebody registered: give it another instance UUID, or take it out of the "
            "inventory",
        )
    return found[0] if found else None


def machine_called(connection: Connection, folder: Entity, name: str) -> Any | None:
    """The machine or vApp of that name in a folder: names are unique there. (On a single ESXi host: anywhere.)"""
    index = connection.content.searchIndex
    for kept in dict.fromkeys((name, escaped(name))):
        found = connection.ask(partial(index.FindChild, folder.object, kept), f"cannot look for {name}")
        if found is not None:
            return found
    return None


def escaped(name: str) -> str:
    """As vCenter keeps it: what would break a path is slashed out."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def machines_called(connection: Connection, root: Any, name: str) -> list[Any]:
    """Machines of that name anywhere below `root`."""
    return [
        thing
        for thing, v in children(connection, root, vim.VirtualMachine, "name")
        if unquote(v.get("name", "")) == name
    ]
