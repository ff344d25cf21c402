"""A simulated vCenter or ESXi host, and what tests need of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim
from simulators.vsphere_server import VSphere

from importers.vmware import inventory
from importers.vmware.connection import Connection
from importers.vmware.options import VmwareOptions, parse_options
from importers.vmware.properties import children, values_of
from importers.vmware.tasks import wait
from pipeline.errors import Cancelled
from pipeline.progress import Watch


class Control:
    """Never cancels, unless told to after so many looks."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.looks = 0
        self.told: list[str] = []
        self._cancel_after = cancel_after

    @property
    def watch(self) -> Watch:
        raise AssertionError("nothing of this moves blocks")

    def check(self) -> None:
        self.looks += 1
        if self._cancel_after is not None and self.looks > self._cancel_after:
            raise Cancelled("enough")

    def tell(self, text: str) -> None:
        self.told.append(text)


@dataclass
class Site:
    """`esxi`: a single host, and no vCenter."""

    address: str
    user: str
    password: str
    fingerprint: str
    esxi: bool
    _open: list[Connection] = field(default_factory=list)

    @classmethod
    def of(cls, server: VSphere, *, esxi: bool = False) -> Site:
        return cls(f"{server.address}:{server.port}", server.user, server.password, server.fingerprint, esxi)

    def values(self, **said: Any) -> dict[str, Any]:
        """Options that lead there; the cluster is DC0_C0 when nothing else is said."""
        values: dict[str, Any] = {"address": self.address, "user": self.user, "fingerprint": self.fingerprint}
        if not self.esxi and "host" not in said:
            values["cluster"] = "DC0_C0"
        return values | {"datastore": "LocalDS_0"} | said

    def options(self, **said: Any) -> VmwareOptions:
        return parse_options(self.values(**said))

    def connect(self, *, alive_seconds: float = 3600.0, **said: Any) -> Connection:
        connection = Connection(self.options(**said), alive_seconds=alive_seconds)
        self._open.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    def place(self, connection: Connection, **said: Any) -> inventory.Site:
        return inventory.find_site(connection, self.options(**said))


def do(connection: Connection, start: Callable[[], Any]) -> Any:
    """A task's result."""
    return wait(connection, connection.order(start, "a step of the test"), Control(), "a step of the test")


def make_machine(
    connection: Connection, site: inventory.Site, name: str, devices: tuple[Any, ...] = (), **values: Any
) -> Any:
    """A machine of somebody else."""
    spec = vim.vm.ConfigSpec(
        name=name,
        numCPUs=1,
        memoryMB=64,
        guestId="otherGuest64",
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="add", device=device) for device in devices],
        **values,
    )
    return do(connection, lambda: site.vm_folder.object.CreateVM_Task(spec, site.pool.object, None))


def all_machines(connection: Connection) -> dict[str, Any]:
    """By name."""
    found = children(connection, connection.content.rootFolder, vim.VirtualMachine, "name")
    return {values["name"]: thing for thing, values in found}


def devices_of(connection: Connection, machine: Any) -> list[Any]:
    devices: list[Any] = values_of(connection, machine, "config.hardware.device")["config.hardware.device"]
    return devices


def marker(number: int = 1) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"test {number}")
