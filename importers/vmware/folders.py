"""Folders on datastores. vSphere makes that of a machine's home itself; where disks of it are elsewhere theirs must be
there before.

Note the folders in the journal before they are made, and take them away when the machine is gone: vSphere leaves empty
ones behind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore, find_datastore
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.files import split_path
from importers.vmware.inventory import Site
from importers.vmware.properties import values_of
from importers.vmware.spec import NewDisk
from importers.vmware.tasks import wait
from pipeline.errors import TargetMismatch
from pipeline.target import Control, Journal

_OBJECTS = ("vsan", "vvol")
"""Kinds of datastores that hold objects: a folder at their root is one, and made by another manager. Unverified."""


NOTE = "folders"


def make_folders(
    connection: Connection, site: Site, stores: Sequence[Datastore], paths: Sequence[str], journal: Journal
) -> None:
    """Of `folders_needed`, noted before the first is made; those that are there stay."""
    if not paths:
        return
    journal.note(NOTE, json.dumps(sorted({*noted(journal), *paths})))
    by_name = {store.name: store for store in stores}
    for path in paths:
        datastore, folder = split_path(path)
        make_folder(connection, site, by_name[datastore], folder)


def sweep(connection: Connection, site: Site, journal: Journal, used: Collection[str], control: Control) -> None:
    """Take away the noted folders that none of the files `used` is in: their machines are gone."""
    left = noted(journal)
    for path in [path for path in left if not any(file.startswith(f"{path}/") for file in used)]:
        if files := _files_in(connection, site, path, control):
            control.tell(f"{path} stays: {files[0]} is in it, which is none of ours")
        elif files is not None:
            remove_folder(connection, site, path, control)
        left.remove(path)
        journal.note(NOTE, json.dumps(left) if left else "")


def _files_in(connection: Connection, site: Site, path: str, control: Control) -> list[str] | None:
    """Names; None: there is no such folder."""
    about = f"cannot look into {path}"
    store = find_datastore(connection, site, split_path(path)[0])
    browser = values_of(connection, store.object, "browser")["browser"]
    task = connection.order(
        lambda: browser.SearchDatastore_Task(path, vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*"])), about
    )
    try:
        found = wait(connection, task, control, about)
    except TargetMismatch as error:
        if isinstance(error.__cause__, vim.fault.FileNotFound):
            return None
        raise
    return [str(file.path) for file in found.file or ()]


def noted(journal: Journal) -> list[str]:
    return list(json.loads(journal.get(NOTE) or "[]"))


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
