"""Custom attributes of machines: what a site's people sort and bill by. vCenter alone has them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.properties import values_of


def set_attributes(connection: Connection, machine: Any, attributes: Mapping[str, str]) -> None:
    """Give the machine these, defining those that vCenter does not know. Nothing on a single ESXi host."""
    manager = connection.content.customFieldsManager
    if not attributes or manager is None:
        return
    known = known_attributes(connection)
    for name, value in sorted(attributes.items()):
        if name not in known:
            add = partial(manager.AddCustomFieldDef, name, vim.VirtualMachine, None, None)
            known[name] = int(connection.order(add, f"cannot define the custom attribute {name}").key)
        connection.order(partial(manager.SetField, machine, known[name], value), f"cannot set the attribute {name}")


def known_attributes(connection: Connection) -> dict[str, int]:
    """Name -> key, of those that machines can have."""
    manager = connection.content.customFieldsManager
    if manager is None:
        return {}
    fields = values_of(connection, manager, "field").get("field", [])
    return {
        str(f.name): int(f.key) for f in fields if f.managedObjectType in (None, vim.VirtualMachine, vim.ManagedEntity)
    }
