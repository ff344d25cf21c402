"""Surviving disks, whose chunks need not be fetched: found, lent to the worker to be read, and given back.

A seed is a disk of a machine that is off, or of none. Nothing is done to that machine; its disk is plugged into the
worker so that nothing can be written to it (`importers.vmware.attach`), and vSphere's locks keep the machine from being
switched on meanwhile. Before it is plugged in it is noted on the machine that is written, so whoever comes after a
command that died gives it back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pyVmomi import vim

from importers.vmware.attach import READ_ONLY, plugged
from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore, all_datastores
from importers.vmware.find import SEEDS
from importers.vmware.hardware import rounded
from importers.vmware.inventory import Site
from importers.vmware.machines import machines_called
from importers.vmware.options import VmwareOptions
from importers.vmware.properties import Values, children, values_of, values_of_all
from importers.vmware.tasks import wait
from importers.vmware.vm import VirtualDisk, Vm, disks_of
from manifests.manifest import Disk
from pipeline.agent.orders import DiskName
from pipeline.errors import FailbackError, TargetBusy, TargetMismatch, Unsupported, UsageError
from pipeline.finding import Finding
from pipeline.target import Control

_PARTS = ("-flat.vmdk", "-delta.vmdk", "-sesparse.vmdk", "-rdm.vmdk", "-rdmp.vmdk", "-ctk.vmdk")
"""Ends of the names of files that belong to a disk and are none."""
_PATHS = ("name", "config.instanceUuid", "config.hardware.device", "config.keyId", "runtime.powerState")
_OFF = "a machine whose disk is read must be off, from now until the import has ended: shut it down, or leave it out"


@dataclass(frozen=True, slots=True)
class Seed:
    """`file`: its path, `[datastore] folder/disk.vmdk`. `machine`: that uses it, off; empty: none that we see."""

    file: str
    machine: str


def find_seeds(
    connection: Connection,
    site: Site,
    names: Sequence[str],
    control: Control,
    *,
    worker: Any = None,
    ours: Collection[str] = (),
) -> list[Seed]:
    """The disks that the names mean, in their order: `[datastore] folder/disk.vmdk`, or a machine for all of its disks.

    `ours`: instance UUIDs of the machines that are written. Raises UsageError, TargetMismatch (it is not there),
    TargetBusy (a machine that is on uses it, if only below a snapshot), Unsupported.
    """
    finder = _Finder(connection, site, control, worker, ours)
    return list({seed.file: seed for name in names for seed in finder.named(name)}.values())


def seed_findings(
    connection: Connection,
    site: Site,
    options: VmwareOptions,
    names: Sequence[str],
    control: Control,
    *,
    worker: Callable[[], Any],
    ours: Collection[str] = (),
) -> Iterator[Finding]:
    """One for each name at least. Changes nothing."""
    try:
        check_possible(options, names)
        finder = _Finder(connection, site, control, worker() if names else None, ours)
    except FailbackError as error:
        yield Finding("error", "seed", error.message, error.remedy)
        return
    for name in names:
        try:
            for seed in finder.named(name):
                message = "it is read in place of what it still has, and never written"
                if seed.machine:
                    message += f"; {seed.machine}, which is off, cannot be switched on meanwhile"
                yield Finding("note", f"seed {seed.file}", message)
        except FailbackError as error:
            yield Finding("error", f"seed {name}", error.message, error.remedy)


def check_possible(options: VmwareOptions, names: Sequence[str]) -> None:
    """Raises Unsupported without a worker: the bulk path sends whole disks from the repository."""
    if names and not options.worker.wanted:
        raise Unsupported(
            "without a worker in the site disks go there whole, from the repository alone: --seed cannot help",
            remedy="name a port group that reaches the bucket with `worker: {network: ...}` in the options, or leave "
            "--seed away",
        )


def text_of(seeds: Sequence[Seed]) -> str:
    """For the mark SEEDS."""
    return json.dumps([seed.file for seed in seeds]) if seeds else ""


def lent_by(machines: Iterable[Vm | None]) -> set[str]:
    """Disks that were, or were about to be, plugged into a worker for these machines to be written."""
    return {file for vm in machines if vm is not None for file in vm.parsed(SEEDS, _files, "[]")}


def _files(text: str) -> list[str]:
    return [str(file) for file in json.loads(text)]


def check_free(worker: Vm, seeds: Sequence[Seed], lent: Collection[str]) -> None:
    """Raises TargetBusy when the worker has one that is not lent to us."""
    there = {disk.file for disk in worker.disks} - set(lent)
    for seed in seeds:
        if seed.file in there:
            raise TargetBusy(
                f"{seed.file} is plugged into the worker {worker.name} for another import",
                remedy="wait for that one, or give back with `failback clean` what it left there when it died",
            )


def names_of(connection: Connection, worker: Any, seeds: Sequence[Seed]) -> list[DiskName]:
    """By which the worker's system knows those that are plugged in. Raises TargetMismatch, Unsupported."""
    found = []
    for seed in seeds:
        disk = plugged(connection, worker, seed.file)
        if disk.mode != READ_ONLY:
            raise TargetMismatch(
                f"{seed.file} is plugged into the worker so that it could be written ({disk.mode})",
                remedy="somebody plugged it in: unplug it in the vSphere client (without deleting its files)",
            )
        _check_raw(disk.raw, seed.file)
        found.append(DiskName(serial=disk.uuid, size=disk.size))
    return found


def fitting(names: Sequence[DiskName], disk: Disk) -> tuple[DiskName, ...]:
    """The seeds that may hold chunks of this disk: one seed a disk in their order, or any of the same size."""
    return tuple(name for i, name in enumerate(names) if i == disk.number or name.size == rounded(disk.size))


@dataclass(frozen=True, slots=True)
class _User:
    """A machine with disks on a datastore."""

    object: Any
    name: str
    instance: str
    on: bool
    encrypted: bool
    disks: tuple[VirtualDisk, ...]

    @classmethod
    def of(cls, thing: Any, values: Values) -> _User:
        return cls(
            thing,
            unquote(str(values.get("name", ""))),
            str(values.get("config.instanceUuid") or "").lower(),
            values.get("runtime.powerState") != "poweredOff",
            values.get("config.keyId") is not None,
            disks_of(values.get("config.hardware.device") or ()),
        )


class _Finder:
    """Looks at each datastore, and the machines on it, once."""

    def __init__(
        self, connection: Connection, site: Site, control: Control, worker: Any, ours: Collection[str]
    ) -> None:
        self._connection, self._site, self._control = connection, site, control
        self._worker, self._ours = worker, {instance.lower() for instance in ours}
        self._stores: Mapping[str, Datastore] = {store.name: store for store in all_datastores(connection, site)}
        self._users: dict[str, list[_User]] = {}
        self._machines: list[tuple[Any, Values]] | None = None

    def named(self, name: str) -> list[Seed]:
        if not name.startswith("["):
            return self._of_machine(name)
        found = re.fullmatch(r"\[([^\]]+)\]\s*(.+\.vmdk)", name)
        if found is None or found[2].endswith(_PARTS):
            raise UsageError(
                f"{name} is no disk: it is known by its descriptor",
                remedy="write `[datastore] folder/disk.vmdk`, as the machine's settings in the vSphere client show it",
            )
        file = f"[{found[1]}] {found[2]}"
        store = self._store(found[1], file)
        self._check_there(store, file)
        return [Seed(file, self._user_of(store, file))]

    def _of_machine(self, name: str) -> list[Seed]:
        there = machines_called(self._connection, self._site.vm_folder.object, name)
        machines = [_User.of(thing, values) for thing, values in self._read(there)]
        machines = [machine for machine in machines if machine.instance not in self._ours]
        if len(machines) != 1:
            raise TargetMismatch(
                f"{len(machines) or 'no'} machine{'s' * (len(machines) > 1)} in the datacenter "
                f"{self._site.datacenter.name} {'are' if machines else 'is'} called {name}",
                remedy="name the surviving machine, or its disks one by one: `[datastore] folder/disk.vmdk`",
            )
        [machine] = machines
        if not machine.disks:
            raise TargetMismatch(f"the machine {name} has no disk", remedy="leave it out, or name a disk")
        seeds = []
        for disk in machine.disks:
            _check_raw(disk.raw, disk.file)
            datastore = disk.file.partition("]")[0].removeprefix("[")
            self._user_of(self._store(datastore, disk.file), disk.file)
            seeds.append(Seed(disk.file, machine.name))
        return seeds

    def _store(self, name: str, file: str) -> Datastore:
        store = self._stores.get(name)
        if store is None or not store.usable:
            reached = ", ".join(sorted(one.name for one in self._stores.values() if one.usable)) or "none"
            raise TargetMismatch(
                f"{file}: no host of {self._site.compute.name} reaches a datastore called {name}, so no worker can "
                "read it",
                remedy=f"mount it there; reached are: {reached}",
            )
        return store

    def _check_there(self, store: Datastore, file: str) -> None:
        folder, _, name = file.rpartition("/") if "/" in file else (f"[{store.name}]", "", file.partition("] ")[2])
        about = f"cannot look for {file}"
        browser = values_of(self._connection, store.object, "browser")["browser"]
        kinds = vim.host.DatastoreBrowser
        query = kinds.VmDiskQuery(details=kinds.VmDiskQuery.Details(diskType=True))
        spec = kinds.SearchSpec(matchPattern=["*"], query=[query])
        task = self._connection.order(lambda: browser.SearchDatastore_Task(folder, spec), about)
        try:
            result = wait(self._connection, task, self._control, about)
        except TargetMismatch as error:
            if not isinstance(error.__cause__, vim.fault.FileNotFound):
                raise
            result = None
        found = [info for info in (result.file if result is not None else ()) or () if str(info.path) == name]
        if not found:
            raise TargetMismatch(
                f"there is no disk {file}", remedy="look for it in the vSphere client, or leave it out"
            )
        _check_raw("RawDisk" in str(getattr(found[0], "diskType", None) or ""), file)

    def _user_of(self, store: Datastore, file: str) -> str:
        """The machine that uses it, off; empty: none. Raises TargetBusy for one that is on."""
        using = ""
        for user in self._users_of(store):
            for disk in user.disks:
                if file not in _chain(disk) or user.object == self._worker:
                    continue
                if user.instance in self._ours:
                    raise UsageError(
                        f"{file} is a disk of {user.name}, which is the machine that is written",
                        remedy="name a surviving disk, or leave it out",
                    )
                if user.on:
                    how = "uses it" if disk.file == file else "runs on a snapshot of it"
                    raise TargetBusy(f"the machine {user.name} is switched on and {how}: {file}", remedy=_OFF)
                if user.encrypted:
                    raise Unsupported(
                        f"{file}: {user.name} is encrypted, so a worker cannot read it",
                        remedy="decrypt it, or leave it out",
                    )
                _check_raw(disk.raw, file)
                using = user.name
        return using

    def _users_of(self, store: Datastore) -> list[_User]:
        if self._machines is None:
            root = self._site.vm_folder.object
            self._machines = children(self._connection, root, vim.VirtualMachine, "datastore")
        if store.id not in self._users:
            there = [thing for thing, values in self._machines if store.object in (values.get("datastore") or ())]
            self._users[store.id] = [_User.of(thing, values) for thing, values in self._read(there)]
        return self._users[store.id]

    def _read(self, machines: Sequence[Any]) -> list[tuple[Any, Values]]:
        return list(zip(machines, values_of_all(self._connection, machines, *_PATHS), strict=True))


def _chain(disk: VirtualDisk) -> list[str]:
    """Its files, that which is written first."""
    files = []
    backing: Any = disk.device.backing
    while backing is not None:
        files.append(str(getattr(backing, "fileName", "")))
        backing = getattr(backing, "parent", None)
    return files


def _check_raw(raw: bool, file: str) -> None:
    if raw:
        raise Unsupported(
            f"{file} is a raw device (RDM): it may be in use elsewhere, and is no seed",
            remedy="leave it out, or copy it to a virtual disk first",
        )
