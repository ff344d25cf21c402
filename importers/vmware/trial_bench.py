"""What a trial works with: a site, and small machines of its own that are known by its run."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vim

from importers.vmware.cards import Card
from importers.vmware.connection import Connection
from importers.vmware.controllers import slots_of
from importers.vmware.datastores import Datastore
from importers.vmware.hardware import Choice
from importers.vmware.inventory import Site
from importers.vmware.lease import Lease, opened
from importers.vmware.machines import find_machine
from importers.vmware.networks import all_networks, backing_of
from importers.vmware.options import VmwareOptions
from importers.vmware.power import switch_off
from importers.vmware.spec import NewDisk, OldDisk, home_of, import_spec, machine_spec
from importers.vmware.trial_stream import SIZE, TrialStream
from importers.vmware.upload import send
from importers.vmware.vm import Vm, destroy, look, reconfigure
from pipeline.errors import TargetError
from pipeline.target import Control

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
Key = Literal["whole", "chunked", "given up", "holder"]


class Different(Exception):
    """It works, in another way than we believe."""


class Skipped(Exception):
    """What it needs is not there."""


@dataclass
class TrialBench:
    """One run. `site` and `datastore` are set before anything is made."""

    connection: Connection
    options: VmwareOptions
    control: Control
    run: uuid.UUID
    site: Site | None = None
    datastore: Datastore | None = None
    version: int = 0
    """Hardware version of the machines; 0: the platform's default."""

    def clean(self) -> None:
        """Nothing of this run is left, as far as vSphere lets us."""
        keys: tuple[Key, ...] = ("holder", "whole", "chunked", "given up")
        for key in keys:
            vm = self.there(key)
            if vm is not None and key == "holder":
                self.let_go(vm.object)
            elif vm is not None:
                switch_off(self.connection, vm.object, vm.name, self.control, seconds=0)
                destroy(self.connection, vm, self.control)

    def imported(self, key: Key, stream: TrialStream) -> str:
        lease = self.lease(key)
        try:
            with lease:
                info = lease.ready()
                [target] = lease.urls(info)
                send(stream, target, self.connection, self.options, lease.check)
                received = lease.received()
                lease.complete()
        except TargetError:
            self.gone(key)  # so that no later point looks at half a machine
            raise
        told = f"{stream.sent} bytes, lease of {info.leaseTimeout} s"
        if not received:
            raise Different(f"{told}; the host does not tell what it received")
        [entry] = received
        if (entry.sha1, entry.size, entry.capacity) != (stream.sha1(), stream.sent, SIZE):
            raise Different(f"{told}; the host tells SHA-1 {entry.sha1}, {entry.size} bytes, {entry.capacity} of disk")
        return f"{told}, SHA-1 confirmed"

    def gone(self, key: Key) -> float | None:
        """Seconds until a machine that vSphere is to remove is gone; None: it stays."""
        pause, began = threading.Event(), time.monotonic()
        while self.there(key) is not None:
            self.control.check()
            if time.monotonic() - began > GONE_SECONDS:
                return None
            pause.wait(1.0)
        return time.monotonic() - began

    def lease(self, key: Key) -> Lease:
        slots, _findings = slots_of({0: "pvscsi"})
        spec = self.spec(key, disks=[NewDisk(slots[0], SIZE, self.store().name)])
        site = self.where()
        return opened(
            self.connection,
            lambda: site.pool.object.ImportVApp(import_spec(spec), site.vm_folder.object, None),
            self.control,
            "cannot import the trial's machine",
        )

    def network(self) -> Any:
        """Any: nothing is plugged in."""
        networks = all_networks(self.connection, self.where())
        if not networks:
            raise Skipped("there is no network")
        return backing_of(self.connection, networks[0])

    def let_go(self, holder: Any) -> None:
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

    def spec(self, key: Key, disks: list[NewDisk | OldDisk]) -> Any:
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
            self.name(key),
            choice,
            VmwareOptions(),
            self.marker(key),
            place=self.run,
            machine="trial",
            datastore=self.store().name,
            disks=disks,
            backings=[self.network() for _card in cards],
            connected=False,
        )

    def name(self, key: Key) -> str:
        return f"failback-trial-{self.run.hex[:8]}-{key.replace(' ', '-')}"

    def home(self, key: Key) -> str:
        return home_of(self.name(key), self.marker(key))

    def marker(self, key: Key) -> uuid.UUID:
        return uuid.uuid5(self.run, key)

    def there(self, key: Key) -> Vm | None:
        machine = find_machine(self.connection, self.marker(key))
        return look(self.connection, machine) if machine is not None else None

    def vm(self, key: Key) -> Vm:
        vm = self.there(key)
        if vm is None:
            raise Skipped("the machine was not made")
        return vm

    def where(self) -> Site:
        assert self.site is not None
        return self.site

    def store(self) -> Datastore:
        assert self.datastore is not None
        return self.datastore
