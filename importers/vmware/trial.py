"""`failback doctor --to vmware --deep FILE`: what nobody ever ran on a real vCenter or ESXi host, tried on this one.

Small machines called `failback-trial-...` are made, looked at and removed again: 64 MiB disks, for some minutes. Each
point is tried by itself; one that fails stops only those that build on it. What is listed as "different" or "failed"
is news for failback's documentation, whether or not it matters at this site.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vim

from importers.vmware import layer, observe
from importers.vmware.cards import Card
from importers.vmware.connection import Connection
from importers.vmware.controllers import slots_of
from importers.vmware.datastores import Datastore, all_datastores, find_datastore
from importers.vmware.environment import look_around
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.files import fetch
from importers.vmware.folders import make_folder, remove_folder
from importers.vmware.hardware import Choice
from importers.vmware.inventory import Site, check_usable, find_site
from importers.vmware.isolated import isolated_network
from importers.vmware.lease import Lease, opened
from importers.vmware.machines import find_machine
from importers.vmware.networks import all_networks, backing_of
from importers.vmware.options import VmwareOptions
from importers.vmware.policies import policies
from importers.vmware.power import switch_off, switch_on
from importers.vmware.privileges import needed
from importers.vmware.properties import values_of
from importers.vmware.spec import NewDisk, OldDisk, disk_change, home_of, import_spec, machine_spec
from importers.vmware.tasks import wait
from importers.vmware.trial_stream import LAST, SIZE, TrialStream
from importers.vmware.upload import send
from importers.vmware.uploads import try_doors
from importers.vmware.vm import Vm, destroy, look, put_marks, reconfigure
from pipeline.errors import Cancelled, FailbackError, TargetError
from pipeline.target import Control, Tried

MEMORY = 64 << 20
GONE_SECONDS = 60.0
"""That vSphere may take to remove a machine whose lease was given up."""
SMBIOS = uuid.UUID("4f6b2c10-8d3e-4a57-9b21-6c0e5d7a9f13")
CARDS = (
    Card("vmxnet3", "52:54:00:fb:00:01", None),
    Card("e1000e", "00:50:56:8f:fb:02", None),
    Card("vmxnet3", "00:0c:29:fb:00:03", None),
)
"""Addresses of nobody, of vCenter's range, and of a host's range."""
_UNREADABLE: tuple[type[Exception], ...] = (REFUSED, TypeError, AttributeError, *CUT)
_PNG = b"\x89PNG"
Key = Literal["whole", "chunked", "given up", "holder"]


class _Different(Exception):
    """It works, in another way than we believe."""


class _Skipped(Exception):
    """What it needs is not there."""


@dataclass
class Trial:
    """One run. `points` are tried in their order; `clean` removes what is left, also of a run that was killed when it
    is given that one's `run`."""

    connection: Connection
    options: VmwareOptions
    control: Control
    run: uuid.UUID
    site: Site | None = None
    datastore: Datastore | None = None
    version: int = 0
    """Hardware version of the machines; 0: the platform's default."""

    def points(self) -> Iterator[Tried]:
        """Raises FailbackError when there is nothing to try it on: no login, no site, no datastore."""
        self.site = find_site(self.connection, self.options)
        check_usable(self.site)
        self.datastore = find_datastore(self.connection, self.site, self.options.datastore)
        try:
            for name, point in self._all():
                self.control.check()
                self.control.tell(f"trying: {name}")
                yield self._tried(name, point)
        finally:
            self.clean()

    def clean(self) -> None:
        """Nothing of this run is left, as far as vSphere lets us."""
        keys: tuple[Key, ...] = ("holder", "whole", "chunked", "given up")
        for key in keys:
            vm = self._there(key)
            if vm is not None and key == "holder":
                self._let_go(vm.object)
            elif vm is not None:
                switch_off(self.connection, vm.object, vm.name, self.control, seconds=0)
                destroy(self.connection, vm, self.control)

    def _all(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("what it is", self._about),
            ("rights are told per object", self._rights),
            ("hosts tell versions and guests", self._environment),
            ("a session can be cloned by ticket", self._ticket),
            ("storage policies are told", self._policies),
            ("hosts take uploads", self._doors),
            ("a folder is made on a datastore", self._folder),
            ("a stored stream of known length is imported", self._stored),
            ("instance UUID and SMBIOS UUID are kept", self._uuids),
            ("files have the names that were asked for", self._files),
            ("addresses of adapters are kept", self._addresses),
            ("the end of the disk reads as what was sent", self._end_of_disk),
            ("a setting changes changeVersion", self._change),
            ("a snapshot leaves the disk below alone", self._snapshot),
            ("a machine starts, and shows its screen", self._boot),
            ("a disk that another machine uses is locked", self._lock),
            ("a network without uplink is made", self._isolated),
            ("a compressed stream of unknown length is imported", self._chunked),
            ("a lease that is given up takes its machine away", self._abort),
        ]

    def _tried(self, name: str, point: Callable[[], str]) -> Tried:
        began = time.monotonic()

        def told(outcome: Literal["as expected", "different", "failed", "skipped"], detail: str) -> Tried:
            return Tried(name, outcome, detail, round(time.monotonic() - began, 2))

        try:
            return told("as expected", point())
        except _Different as news:
            return told("different", str(news))
        except _Skipped as reason:
            return told("skipped", str(reason))
        except Cancelled:
            raise
        except FailbackError as error:
            return told("failed", error.message)
        except _UNREADABLE as fault:
            return told("failed", explain(fault, type(fault).__name__).message)

    # -- points ----------------------------------------------------------------------------------------------------

    def _about(self) -> str:
        about = self.connection.content.about
        return f"{about.fullName}, API {about.apiVersion}, instance {about.instanceUuid}"

    def _rights(self) -> str:
        site, ids = self._site(), [privilege.id for privilege in needed([])]
        manager = self.connection.content.authorizationManager
        things = [site.vm_folder.object]
        answer = self.connection.asked(lambda: manager.HasPrivilegeOnEntities(things, self.connection.session, ids))
        granted = {str(a.privId) for one in answer for a in one.privAvailability if a.isGranted}
        if missing := [i for i in ids if i not in granted]:
            raise _Different(f"on the machine folder these are not granted: {', '.join(missing)}")
        return f"all {len(ids)} are granted on the machine folder"

    def _environment(self) -> str:
        environment = look_around(self.connection, self._site(), self.options.version)
        self.version = environment.version
        found = f"hardware versions {', '.join(map(str, environment.versions)) or 'not told'}"
        if not environment.guests:
            raise _Different(f"{found}; the guests cannot be read, the built-in table stands in")
        return f"{found}; {len(environment.guests)} guest ids"

    def _ticket(self) -> str:
        manager = self.connection.content.sessionManager
        ticket = str(self.connection.asked(manager.AcquireCloneTicket))
        if not ticket.startswith("cst-"):
            raise _Different("a clone ticket does not begin with cst-")
        return "a clone ticket begins with cst-"

    def _policies(self) -> str:
        if not self.connection.is_vcenter:
            raise _Skipped("a single host has none")
        return f"{len(policies(self.connection))} policies"

    def _doors(self) -> str:
        doors = try_doors(self.connection, self.options, self._site())
        shut = [f"{door.host.name}: {door.trouble}" for door in doors if door.trouble]
        if shut:
            raise _Different("; ".join(shut))
        return f"{len(doors)} hosts, with the certificates that vCenter knows"

    def _folder(self) -> str:
        site, stores = self._site(), [d for d in all_datastores(self.connection, self._site()) if d.usable]
        store = next((d for d in stores if d.id != self._store().id), self._store())
        home = f"failback-trial-{self.run.hex[:8]}"
        make_folder(self.connection, site, store, home)
        if not remove_folder(self.connection, site, f"[{store.name}] {home}", self.control):
            raise _Different(f"the folder on {store.name} ({store.kind}) is not found under its name")
        return f"on {store.name} ({store.kind})"

    def _stored(self) -> str:
        return self._import("whole", TrialStream())

    def _uuids(self) -> str:
        values = values_of(self.connection, self._vm("whole").object, "config.instanceUuid", "config.uuid")
        seen = values.get("config.instanceUuid"), values.get("config.uuid")
        if seen != (str(self._marker("whole")), str(SMBIOS)):
            raise _Different(f"instance UUID {seen[0]}, SMBIOS UUID {seen[1]}; asked for {SMBIOS}")
        return "both"

    def _files(self) -> str:
        [disk] = self._vm("whole").disks
        asked = f"[{self._store().name}] {self._home('whole')}/{self._home('whole')}-0.vmdk"
        if disk.file != asked:
            raise _Different(f"{disk.file} instead of {asked}")
        return disk.file

    def _addresses(self) -> str:
        cards = [d for d in self._vm("whole").devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
        seen = sorted(str(card.macAddress).lower() for card in cards)
        if seen != sorted(card.mac for card in CARDS):
            raise _Different(f"{', '.join(seen)} instead of {', '.join(card.mac for card in CARDS)}")
        return ", ".join(f"{card.macAddress} ({card.addressType})" for card in cards)

    def _end_of_disk(self) -> str:
        [disk] = self._vm("whole").disks
        flat = disk.file.removesuffix(".vmdk") + "-flat.vmdk"
        data = fetch(self.connection, self._site().datacenter.name, flat, tail=len(LAST))
        if data is None:
            raise _Skipped(f"this kind of datastore ({self._store().kind}) has no {flat}")
        if data != LAST:
            raise _Different("it reads otherwise")
        return f"{len(data)} bytes of {flat}"

    def _change(self) -> str:
        before = self._vm("whole")
        put_marks(self.connection, before.object, self.control, {"trial": "1"})
        after = self._vm("whole")
        if not before.change or after.change == before.change:
            raise _Different(f"changeVersion was {before.change!r} and is {after.change!r}")
        return "it does"

    def _snapshot(self) -> str:
        vm, marker = self._vm("whole"), self._marker("whole")
        layer.make(self.connection, vm, self.control, marker, "rehearsal", "trial", ())
        above = self._vm("whole")
        found = layer.layer_of(above, marker)
        if found is None:
            raise _Different("the snapshot's description does not come back")
        files = [(disk.file, disk.base, disk.uuid) for disk in above.disks]
        layer.revert(self.connection, above, self.control, found)
        layer.remove(self.connection, self._vm("whole"), self.control, found)
        below = self._vm("whole")
        [old], [new], [(file, base, unique)] = vm.disks, below.disks, files
        if file == old.file or base != old.file or unique != old.uuid or (new.file, new.uuid) != (old.file, old.uuid):
            raise _Different(
                f"{old.file} became {file} on {base}, then {new.file}; UUIDs {old.uuid} {unique} {new.uuid}"
            )
        return f"{file}, and back"

    def _boot(self) -> str:
        vm = self._vm("whole")
        switch_on(self.connection, vm.object, vm.name, self.control)
        picture = observe.picture(self.connection, vm.object, vm.name, self._site().datacenter.name, self.control)
        if picture is None or not picture.startswith(_PNG):
            raise _Different("it runs, and there is no picture in PNG")
        return f"a picture of {len(picture)} bytes"

    def _lock(self) -> str:
        vm = self._vm("whole")
        if vm.power != "poweredOn":
            raise _Skipped("the machine does not run")
        spec = self._spec("holder", disks=[])
        site = self._site()
        order = self.connection.order(
            lambda: site.vm_folder.object.CreateVM_Task(spec, site.pool.object, None), "cannot make a second machine"
        )
        holder = wait(self.connection, order, self.control, "cannot make a second machine")
        slots, _findings = slots_of({0: "pvscsi"})
        changes = [disk_change(OldDisk(slots[0], vm.disks[0].file, "independent_persistent"))]
        try:
            reconfigure(
                self.connection, holder, self.control, vim.vm.ConfigSpec(deviceChange=changes), "cannot plug it in"
            )
            switch_on(self.connection, holder, "the second machine", self.control)
        except TargetError as error:
            return f"refused: {error.message}"
        finally:
            self._let_go(holder)
        raise _Different("a second machine runs with a disk that the first one writes to")

    def _isolated(self) -> str:
        if self.options.isolated:
            raise _Skipped("the mapping names one")
        network = isolated_network(self.connection, self._site(), self.options, self._vm("whole"), self.control)
        if network is None:
            raise _Different("it cannot be made; rehearsals have their cables pulled")
        return f"{network.name}; it stays"

    def _chunked(self) -> str:
        return self._import("chunked", TrialStream(level=1))

    def _abort(self) -> str:
        lease = self._lease("given up")
        with lease:
            lease.ready()
        seconds = self._gone("given up")
        if seconds is None:
            raise _Different(f"after {GONE_SECONDS:.0f} s the machine is still there")
        return f"gone after {seconds:.0f} s"

    # -- what they are made of -------------------------------------------------------------------------------------

    def _import(self, key: Key, stream: TrialStream) -> str:
        lease = self._lease(key)
        try:
            with lease:
                info = lease.ready()
                [target] = lease.urls(info)
                send(stream, target, self.connection, self.options, lease.check)
                received = lease.received()
                lease.complete()
        except TargetError:
            self._gone(key)  # so that no later point looks at half a machine
            raise
        told = f"{stream.sent} bytes, lease of {info.leaseTimeout} s"
        if not received:
            raise _Different(f"{told}; the host does not tell what it received")
        [entry] = received
        if (entry.sha1, entry.size, entry.capacity) != (stream.sha1(), stream.sent, SIZE):
            raise _Different(f"{told}; the host tells SHA-1 {entry.sha1}, {entry.size} bytes, {entry.capacity} of disk")
        return f"{told}, SHA-1 confirmed"

    def _gone(self, key: Key) -> float | None:
        """Seconds until a machine that vSphere is to remove is gone; None: it stays."""
        pause, began = threading.Event(), time.monotonic()
        while self._there(key) is not None:
            self.control.check()
            if time.monotonic() - began > GONE_SECONDS:
                return None
            pause.wait(1.0)
        return time.monotonic() - began

    def _lease(self, key: Key) -> Lease:
        slots, _findings = slots_of({0: "pvscsi"})
        spec = self._spec(key, disks=[NewDisk(slots[0], SIZE, self._store().name)])
        site = self._site()
        return opened(
            self.connection,
            lambda: site.pool.object.ImportVApp(import_spec(spec), site.vm_folder.object, None),
            self.control,
            "cannot import the trial's machine",
        )

    def _network(self) -> Any:
        """Any: nothing is plugged in."""
        networks = all_networks(self.connection, self._site())
        if not networks:
            raise _Skipped("there is no network")
        return backing_of(self.connection, networks[0])

    def _let_go(self, holder: Any) -> None:
        """Removed without the disk, which is another machine's."""
        switch_off(self.connection, holder, "the second machine", self.control, seconds=0)
        vm = look(self.connection, holder)
        if vm is None:
            return
        if vm.disks:
            changes = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk.device) for disk in vm.disks]
            reconfigure(
                self.connection, holder, self.control, vim.vm.ConfigSpec(deviceChange=changes), "cannot unplug the disk"
            )
        destroy(self.connection, vm, self.control)

    def _spec(self, key: Key, disks: list[NewDisk | OldDisk]) -> Any:
        cards = CARDS if key == "whole" else ()
        choice = Choice(
            firmware="bios",
            secure_boot=False,
            version=self.version,
            guest="otherGuest64",
            cpus=1,
            cores=1,
            memory=MEMORY,
            slots=(),
            cards=cards,
            smbios=SMBIOS if key == "whole" else None,
        )
        return machine_spec(
            self._name(key),
            choice,
            VmwareOptions(),
            self._marker(key),
            place=self.run,
            machine="trial",
            datastore=self._store().name,
            disks=disks,
            backings=[self._network() for _card in cards],
            connected=False,
        )

    def _name(self, key: Key) -> str:
        return f"failback-trial-{self.run.hex[:8]}-{key.replace(' ', '-')}"

    def _home(self, key: Key) -> str:
        return home_of(self._name(key), self._marker(key))

    def _marker(self, key: Key) -> uuid.UUID:
        return uuid.uuid5(self.run, key)

    def _there(self, key: Key) -> Vm | None:
        machine = find_machine(self.connection, self._marker(key))
        return look(self.connection, machine) if machine is not None else None

    def _vm(self, key: Key) -> Vm:
        vm = self._there(key)
        if vm is None:
            raise _Skipped("the machine was not made")
        return vm

    def _site(self) -> Site:
        assert self.site is not None
        return self.site

    def _store(self) -> Datastore:
        assert self.datastore is not None
        return self.datastore
