"""Folders on datastores. vSphere makes that of a machine's home itself; where disks of it are elsewhere theirs must be
there before.

Note the folders in the journal before they are made, and take them away when the machine is gone: vSphere leaves empty
ones behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.inventory import Site
from importers.vmware.spec import NewDisk
from importers.vmware.tasks import wait
from pipeline.errors import TargetMismatch
from pipeline.target import Control

_OBJECTS = ("vsan", "vvol")
"""Kinds of datastores that hold objects: a folder at their root is one, and made by another manager. Unverified."""


def folders_needed(disks: Sequence[NewDisk], home_datastore: str, home: str) -> list[str]:
    """As vSphere writes them, `[datastore] folder`: those beside the machine's home."""
    return [f"[{name}] {home}" for name in dict.fromkeys(disk.datastore for disk in disks) if name != home_datastore]


def make_folder(connection: Connection, site: Site, datastore: Datastore, home: str) -> None:
    """Nothing when it is there already."""
    about = f"cannot make the folder {home} on the datastore {datastore.name}"
    content = connection.content
    try:
        if datastore.kind.lower() in _OBJECTS and content.datastoreNamespaceManager is not None:
            manager = content.datastoreNamespaceManager
            connection.asked(lambda: manager.CreateDirectory(datastore.object, home, None))
        else:
            path = f"[{datastore.name}] {home}"
            connection.asked(lambda: content.fileManager.MakeDirectory(path, site.datacenter.object, True))
    except vim.fault.FileAlreadyExists:
        return  # also when an answer was lost, and it was asked for twice
    except (REFUSED, *CUT) as fault:
        raise explain(fault, about) from fault


def remove_folder(connection: Connection, site: Site, path: str, control: Control) -> bool:
    """With everything in it; `path` of `folders_needed`. False: it is not there."""
    about = f"cannot remove {path}"
    manager = connection.content.fileManager
    task = connection.order(lambda: manager.DeleteDatastoreFile_Task(path, site.datacenter.object), about)
    try:
        wait(connection, task, control, about)
    except TargetMismatch as error:
        if isinstance(error.__cause__, vim.fault.FileNotFound):
            return False
        raise
    return True
