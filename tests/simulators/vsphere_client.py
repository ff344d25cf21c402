"""A small client of the vSphere API for tests of the stand-in, on pyvmomi as it comes: none of the product's code."""

from __future__ import annotations

import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVim.connect import SmartConnect
from pyVmomi import vim, vmodl

from simulators.vsphere_server import VSphere

VMDK = "application/x-vnd.vmware-streamVmdk"
DISK_BYTES = 8 << 20
_SECONDS = 120.0
Add = vim.vm.device.VirtualDeviceSpec


class TaskFailed(Exception):
    """A task ended in error; `fault` is it."""

    def __init__(self, fault: Any) -> None:
        super().__init__(f"{type(fault).__name__}: {fault.msg}")
        self.fault = fault


@dataclass(frozen=True)
class Client:
    """One session. Only leaf properties are read, by the property collector."""

    server: VSphere
    instance: Any

    @property
    def content(self) -> Any:
        return self.instance.content

    def all(self, kind: type) -> list[Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        try:
            return list(view.view)
        finally:
            view.Destroy()

    def named(self, kind: type, name: str) -> Any:
        return next(found for found in self.all(kind) if found.name == name)

    def get(self, subject: Any, path: str) -> Any:
        collector = vmodl.query.PropertyCollector
        found = self.content.propertyCollector.RetrieveContents(
            [
                collector.FilterSpec(
                    objectSet=[collector.ObjectSpec(obj=subject)],
                    propSet=[collector.PropertySpec(type=type(subject), pathSet=[path])],
                )
            ]
        )
        return found[0].propSet[0].val if found and found[0].propSet else None

    def wait(self, task: Any) -> Any:
        """The task's result. Raises TaskFailed."""
        eventually(lambda: self.get(task, "info.state") in ("success", "error"))
        if self.get(task, "info.state") == "error":
            raise TaskFailed(self.get(task, "info.error"))
        return self.get(task, "info.result")

    def create(self, spec: Any) -> Any:
        return self.wait(self.folder.CreateVM_Task(spec, self.pool, None))

    def lease(self, spec: Any) -> Any:
        """An import lease that is ready or in error."""
        lease = self.pool.ImportVApp(vim.vm.VmImportSpec(configSpec=spec), self.folder, None)
        eventually(lambda: self.get(lease, "state") != "initializing")
        return lease

    def imported(self, name: str, stream: bytes, **more: Any) -> Any:
        """A machine whose one disk was uploaded."""
        lease = self.lease(machine_spec(name, **more))
        info = self.get(lease, "info")
        assert upload(info.deviceUrl[0].url, stream).status == 201
        lease.HttpNfcLeaseComplete()
        eventually(lambda: self.get(lease, "state") == "done")
        return info.entity

    @property
    def folder(self) -> Any:
        return self.all(vim.Datacenter)[0].vmFolder

    @property
    def pool(self) -> Any:
        return self.all(vim.ResourcePool)[0]

    def file(
        self, path: str, method: str = "GET", *, cookie: bool = True, data: bytes | None = None, **headers: str
    ) -> Answer:
        """One request for a file of a datastore, "[LocalDS_0] folder/name"."""
        datastore, inside = path[1:].split("] ")
        query = urllib.parse.urlencode({"dcPath": "DC0", "dsName": datastore})
        url = f"https://{self.server.address}:{self.server.port}/folder/{urllib.parse.quote(inside)}?{query}"
        if cookie:
            headers["Cookie"] = self.instance._stub.cookie.split(";")[0]
        return send(url, method, data, headers)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


def log_in(server: VSphere, user: str = "", password: str = "") -> Client:
    instance = SmartConnect(
        host=server.address,
        port=server.port,
        user=user or server.user,
        pwd=password or server.password,
        disableSslCertValidation=True,
    )
    return Client(server, instance)


def machine_spec(
    name: str, *, datastore: str = "LocalDS_0", disks: int = 1, size: int = DISK_BYTES, thin: bool = True, **more: Any
) -> Any:
    """A machine with new disks on a PVSCSI controller; `more` goes to the ConfigSpec."""
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo
    changes = [
        Add(
            operation="add",
            device=vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing"),
        )
    ]
    for unit in range(disks):
        disk = vim.vm.device.VirtualDisk(
            key=2000 + unit,
            controllerKey=1000,
            unitNumber=unit,
            capacityInKB=size // 1024,
            backing=backing(diskMode="persistent", thinProvisioned=thin, fileName=f"[{datastore}]"),
        )
        changes.append(Add(operation="add", fileOperation="create", device=disk))
    changes += more.pop("deviceChange", [])
    return vim.vm.ConfigSpec(
        name=name,
        numCPUs=1,
        memoryMB=64,
        guestId=more.pop("guestId", "otherLinux64Guest"),
        files=vim.vm.FileInfo(vmPathName=f"[{datastore}]"),
        deviceChange=changes,
        **more,
    )


def attach_spec(path: str, unit: int = 5, *, controller: int = 1000, mode: str = "independent_persistent") -> Any:
    """Adds an existing disk."""
    disk = vim.vm.device.VirtualDisk(
        key=-1,
        controllerKey=controller,
        unitNumber=unit,
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(diskMode=mode, fileName=path),
    )
    return vim.vm.ConfigSpec(deviceChange=[Add(operation="add", device=disk)])


def detach_spec(disk: Any) -> Any:
    """Takes a disk away and keeps its file."""
    return vim.vm.ConfigSpec(deviceChange=[Add(operation="remove", device=disk)])


def disks_of(client: Client, machine: Any) -> list[Any]:
    devices = client.get(machine, "config.hardware.device")
    return [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]


def stream_of(raw: bytes, folder: Path) -> bytes:
    """A streamOptimized VMDK, written by qemu-img."""
    source, target = folder / "source.raw", folder / "source.vmdk"
    source.write_bytes(raw)
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", str(source), str(target)],
        check=True,
    )
    return target.read_bytes()


def upload(url: str, data: Any, *, method: str = "POST", kind: str = VMDK, length: int | None = None) -> Answer:
    headers = {"Content-Type": kind}
    if length is not None or isinstance(data, bytes):
        headers["Content-Length"] = str(len(data) if length is None else length)
    return send(url, method, data, headers)


def send(url: str, method: str, data: Any, headers: dict[str, str]) -> Answer:
    """Raises OSError when the connection breaks."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())


def eventually(holds: Callable[[], bool], seconds: float = _SECONDS, pause: float = 0.02) -> None:
    """Wait until it holds, looking every `pause` seconds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(pause)
