"""`failback doctor --to vmware --deep FILE`: what nobody ever ran on a real vCenter or ESXi host, tried on this one.

Small machines called `failback-trial-...` are made, looked at and removed again: 64 MiB disks, for some minutes. Each
point is tried by itself; one that fails stops only those that build on it. What is listed as "different" or "failed"
is news for failback's documentation, whether or not it matters at this site.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal

from pyVmomi import vim

from importers.vmware import layer, observe
from importers.vmware.controllers import slots_of
from importers.vmware.datastores import all_datastores, find_datastore
from importers.vmware.environment import look_around
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.files import fetch
from importers.vmware.folders import make_folder, remove_folder
from importers.vmware.inventory import check_usable, find_site, path_of
from importers.vmware.isolated import isolated_network
from importers.vmware.policies import policies
from importers.vmware.power import switch_on
from importers.vmware.privileges import needed
from importers.vmware.properties import values_of
from importers.vmware.spec import OldDisk, disk_change
from importers.vmware.tasks import wait
from importers.vmware.trial_bench import CARDS, GONE_SECONDS, SMBIOS, Different, Skipped, TrialBench
from importers.vmware.trial_stream import LAST, TrialStream
from importers.vmware.uploads import try_doors
from importers.vmware.vm import put_marks, reconfigure
from pipeline.errors import Cancelled, FailbackError, TargetError
from pipeline.target import Tried

_UNREADABLE: tuple[type[Exception], ...] = (REFUSED, TypeError, AttributeError, *CUT)
_PNG = b"\x89PNG"


class Trial(TrialBench):
    """`points` are tried in their order; `clean` removes what is left, also of a run that was killed when it is given
    that one's `run`."""

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
        except Different as news:
            return told("different", str(news))
        except Skipped as reason:
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
        site, ids = self.where(), [privilege.id for privilege in needed([])]
        manager = self.connection.content.authorizationManager
        things = [site.vm_folder.object]
        answer = self.connection.asked(lambda: manager.HasPrivilegeOnEntities(things, self.connection.session, ids))
        granted = {str(a.privId) for one in answer for a in one.privAvailability if a.isGranted}
        if missing := [i for i in ids if i not in granted]:
            raise Different(f"on the machine folder these are not granted: {', '.join(missing)}")
        return f"all {len(ids)} are granted on the machine folder"

    def _environment(self) -> str:
        environment = look_around(self.connection, self.where(), self.options.version)
        self.version = environment.version
        found = f"hardware versions {', '.join(map(str, environment.versions)) or 'not told'}"
        if not environment.guests:
            raise Different(f"{found}; the guests cannot be read, the built-in table stands in")
        return f"{found}; {len(environment.guests)} guest ids"

    def _ticket(self) -> str:
        manager = self.connection.content.sessionManager
        ticket = str(self.connection.asked(manager.AcquireCloneTicket))
        if not ticket.startswith("cst-"):
            raise Different("a clone ticket does not begin with cst-")
        return "a clone ticket begins with cst-"

    def _policies(self) -> str:
        if not self.connection.is_vcenter:
            raise Skipped("a single host has none")
        return f"{len(policies(self.connection))} policies"

    def _doors(self) -> str:
        doors = try_doors(self.connection, self.options, self.where())
        shut = [f"{door.host.name}: {door.trouble}" for door in doors if door.trouble]
        if shut:
            raise Different("; ".join(shut))
        return f"{len(doors)} hosts, with the certificates that vCenter knows"

    def _folder(self) -> str:
        site, stores = self.where(), [d for d in all_datastores(self.connection, self.where()) if d.usable]
        store = next((d for d in stores if d.id != self.store().id), self.store())
        home = f"failback-trial-{self.run.hex[:8]}"
        make_folder(self.connection, site, store, home)
        if not remove_folder(self.connection, site.datacenter.object, f"[{store.name}] {home}", self.control):
            raise Different(f"the folder on {store.name} ({store.kind}) is not found under its name")
        return f"on {store.name} ({store.kind})"

    def _stored(self) -> str:
        return self.imported("whole", TrialStream())

    def _uuids(self) -> str:
        values = values_of(self.connection, self.vm("whole").object, "config.instanceUuid", "config.uuid")
        seen = values.get("config.instanceUuid"), values.get("config.uuid")
        if seen != (str(self.marker("whole")), str(SMBIOS)):
            raise Different(f"instance UUID {seen[0]}, SMBIOS UUID {seen[1]}; asked for {SMBIOS}")
        return "both"

    def _files(self) -> str:
        [disk] = self.vm("whole").disks
        asked = f"[{self.store().name}] {self.home('whole')}/{self.home('whole')}-0.vmdk"
        if disk.file != asked:
            raise Different(f"{disk.file} instead of {asked}")
        return disk.file

    def _addresses(self) -> str:
        cards = [d for d in self.vm("whole").devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
        seen = sorted(str(card.macAddress).lower() for card in cards)
        if seen != sorted(card.mac for card in CARDS):
            raise Different(f"{', '.join(seen)} instead of {', '.join(card.mac for card in CARDS)}")
        return ", ".join(f"{card.macAddress} ({card.addressType})" for card in cards)

    def _end_of_disk(self) -> str:
        [disk] = self.vm("whole").disks
        flat = disk.file.removesuffix(".vmdk") + "-flat.vmdk"
        data = fetch(self.connection, path_of(self.connection, self.where().datacenter), flat, tail=len(LAST))
        if data is None:
            raise Skipped(f"this kind of datastore ({self.store().kind}) has no {flat}")
        if data != LAST:
            raise Different("it reads otherwise")
        return f"{len(data)} bytes of {flat}"

    def _change(self) -> str:
        before = self.vm("whole")
        put_marks(self.connection, before.object, self.control, {"trial": "1"})
        after = self.vm("whole")
        if not before.change or after.change == before.change:
            raise Different(f"changeVersion was {before.change!r} and is {after.change!r}")
        return "it does"

    def _snapshot(self) -> str:
        vm, marker = self.vm("whole"), self.marker("whole")
        layer.make(self.connection, vm, self.control, marker, "rehearsal", "trial", ())
        above = self.vm("whole")
        found = layer.layer_of(above, marker)
        if found is None:
            raise Different("the snapshot's description does not come back")
        files = [(disk.file, disk.base, disk.uuid) for disk in above.disks]
        layer.revert(self.connection, above, self.control, found)
        layer.remove(self.connection, self.vm("whole"), self.control, found)
        below = self.vm("whole")
        [old], [new], [(file, base, unique)] = vm.disks, below.disks, files
        if file == old.file or base != old.file or unique != old.uuid or (new.file, new.uuid) != (old.file, old.uuid):
            raise Different(
                f"{old.file} became {file} on {base}, then {new.file}; UUIDs {old.uuid} {unique} {new.uuid}"
            )
        return f"{file}, and back"

    def _boot(self) -> str:
        vm = self.vm("whole")
        switch_on(self.connection, vm.object, vm.name, self.control)
        path = path_of(self.connection, self.where().datacenter)
        picture = observe.picture(self.connection, vm.object, vm.name, path, self.control)
        if picture is None or not picture.startswith(_PNG):
            raise Different("it runs, and there is no picture in PNG")
        return f"a picture of {len(picture)} bytes"

    def _lock(self) -> str:
        vm = self.vm("whole")
        if vm.power != "poweredOn":
            raise Skipped("the machine does not run")
        spec = self.spec("holder", disks=[])
        site = self.where()
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
            self.let_go(holder)
        raise Different("a second machine runs with a disk that the first one writes to")

    def _isolated(self) -> str:
        if self.options.isolated:
            raise Skipped("the mapping names one")
        network = isolated_network(self.connection, self.where(), self.options, self.vm("whole"), self.control)
        if network is None:
            raise Different("it cannot be made; rehearsals have their cables pulled")
        return f"{network.name}; it stays"

    def _chunked(self) -> str:
        return self.imported("chunked", TrialStream(level=1))

    def _abort(self) -> str:
        lease = self.lease("given up")
        with lease:
            lease.ready()
        seconds = self.gone("given up")
        if seconds is None:
            raise Different(f"after {GONE_SECONDS:.0f} s the machine is still there")
        return f"gone after {seconds:.0f} s"
