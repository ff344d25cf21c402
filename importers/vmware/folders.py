"""Folders on datastores. vSphere makes that of a machine's home itself; where disks of it are elsewhere theirs must be
there before.

Note the folders in the journal before they are made, and take them away when the machine is gone: vSphere leaves empty
ones behind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore
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


@dataclass(frozen=True, slots=True)
class Noted:
    """A folder of ours, and where it is: what a mapping says may be another thing when it is taken away."""

    path: str
    """As vSphere writes it, `[datastore] folder`."""
    datacenter: str
    """Its id, and that of the datastore."""
    datastore: str


def make_folders(
    connection: Connection, site: Site, stores: Sequence[Datastore], paths: Sequence[str], journal: Journal
) -> None:
    """Of `folders_needed`, noted before the first is made; those that are there stay."""
    if not paths:
        return
    by_name = {store.name: store for store in stores}
    ours = [Noted(path, site.datacenter.id, by_name[split_path(path)[0]].id) for path in paths]
    _note(journal, [*noted(journal), *(one for one in ours if one not in noted(journal))])
    for path in paths:
        datastore, folder = split_path(path)
        make_folder(connection, site, by_name[datastore], folder)


def sweep(connection: Connection, journal: Journal, used: Collection[str], control: Control) -> None:
    """Take away the noted folders that none of the files `used` is in: their machines are gone."""
    left = noted(journal)
    for one in [one for one in left if not any(file.startswith(f"{one.path}/") for file in used)]:
        if files := _files_in(connection, one, control):
            control.tell(f"{one.path} stays: {files[0]} is in it, which is none of ours")
        elif files is not None:
            remove_folder(connection, connection.managed(vim.Datacenter, one.datacenter), one.path, control)
        left.remove(one)
        _note(journal, left)


def _note(journal: Journal, folders: Sequence[Noted]) -> None:
    journal.note(NOTE, json.dumps([astuple(one) for one in folders]) if folders else "")


def _files_in(connection: Connection, one: Noted, control: Control) -> list[str] | None:
    """Names; None: there is no such folder, or no such datastore any more."""
    path = one.path
    about = f"cannot look into {path}"
    try:
        store = connection.managed(vim.Datastore, one.datastore)
        browser = values_of(connection, store, "browser")["browser"]
    except TargetMismatch:
        return None
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


def noted(journal: Journal) -> list[Noted]:
    return [Noted(*one) for one in json.loads(journal.get(NOTE) or "[]")]


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


def remove_folder(connection: Connection, datacenter: Any, path: str, control: Control) -> bool:
    """With everything in it; `path` of `folders_needed`. False: it is not there."""
    about = f"cannot remove {path}"
    manager = connection.content.fileManager
    task = connection.order(lambda: manager.DeleteDatastoreFile_Task(path, datacenter), about)
    try:
        wait(connection, task, control, about)
    except TargetMismatch as error:
        if isinstance(error.__cause__, vim.fault.FileNotFound):
            return False
        raise
    return True
