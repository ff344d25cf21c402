"""A machine that the stand-in powers on really boots from what was uploaded, on the hardware that it was given."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyVmomi import vim

# The builder is not installed: it is found from the top of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.boot.cache import default_folder
from scripts.guest import GuestDisks, build_guest
from simulators.vsphere_client import (
    DISK_BYTES,
    Add,
    Client,
    TaskFailed,
    attach_spec,
    detach_spec,
    disks_of,
    eventually,
    machine_spec,
    stream_of,
    upload,
)
from simulators.vsphere_server import VSphere, run_vsphere

pytestmark = pytest.mark.slow

_CACHE = default_folder()
Device = vim.vm.device
Build = Callable[..., GuestDisks]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    def build(**recipe: Any) -> GuestDisks:
        return build_guest(tmp_path_factory.mktemp("guest"), cache=_CACHE, size=256 << 20, **recipe)

    return build


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    with run_vsphere(tmp_path_factory.mktemp("vsphere"), qemu=True) as running:
        yield running
        assert running.report()["problems"] == []


def serial_port(name: str) -> Any:
    backing = Device.VirtualSerialPort.FileBackingInfo(fileName=f"[LocalDS_0] {name}/serial.log")
    return Add(operation="add", device=Device.VirtualSerialPort(key=-7, backing=backing, yieldOnPoll=True))


def card(network: str = "VM Network") -> Any:
    backing = Device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network)
    return Add(operation="add", device=Device.VirtualVmxnet3(key=-9, backing=backing, addressType="assigned"))


def spec_for(name: str, guest: GuestDisks, controller: Any, **more: Any) -> Any:
    extra = [vim.option.OptionValue(key="disk.EnableUUID", value="TRUE")]
    spec = machine_spec(
        name, size=guest.disks[0].stat().st_size, deviceChange=[serial_port(name), card()], extraConfig=extra, **more
    )
    spec.memoryMB = 512
    spec.deviceChange[0].device = controller
    return spec


def said(server: VSphere, name: str) -> str:
    return Path(server.machine(name)["serial"]).read_text(errors="replace")


def ready(server: VSphere, name: str) -> None:
    def is_ready() -> bool:
        machine = server.machine(name)
        assert machine["power"] == "poweredOn", f"it went off:\n{said(server, name)[-3000:]}"
        return "failback-guest ready" in said(server, name)

    eventually(is_ready, 240, pause=0.5)


def test_what_was_uploaded_boots_and_lives(
    client: Client, name: str, server: VSphere, build: Build, tmp_path: Path
) -> None:
    guest = build(name=name)
    controller = Device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    lease = client.lease(spec_for(name, guest, controller))
    info = client.get(lease, "info")
    assert upload(info.deviceUrl[0].url, stream_of(guest.disks[0].read_bytes(), tmp_path)).status == 201
    lease.HttpNfcLeaseComplete()
    machine = info.entity
    eventually(lambda: client.get(lease, "state") == "done")
    client.wait(machine.PowerOnVM_Task())
    ready(server, name)

    web = server.forward(name, 80, address="127.0.0.5", port=8080)
    with urllib.request.urlopen(f"http://{web}/", timeout=30) as page:
        assert name in page.read().decode()
    picture = tmp_path / "screen.png"
    picture.write_bytes(client.file(client.wait(machine.CreateScreenshot_Task())).body)
    with Image.open(picture) as image:
        assert len(image.getcolors(1 << 20) or ()) > 1, "the screen is not black"

    _host, port = server.forward(name, 22).split(":")

    def run(command: str) -> str:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{port} {guest.ssh_host_key.read_text().strip()}\n")
        options = ["-i", str(guest.ssh_key), "-p", port, "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
        done = subprocess.run(
            ["ssh", *options, "root@127.0.0.1", command], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # A disk of another machine comes, is known by its identity, is written, and goes.
    other = client.create(machine_spec(name + "-target"))
    [target] = disks_of(client, other)
    client.wait(machine.ReconfigVM_Task(attach_spec(target.backing.fileName, unit=3)))
    found = "ls /sys/block | while read d; do [ $(cat /sys/block/$d/size) = 16384 ] && echo $d; done"
    eventually(lambda: bool(run(found + "; true")), 30)
    device = run(found + "; true")
    serial = run(f"dd if=/sys/block/{device}/device/vpd_pg80 bs=1 skip=4 2>/dev/null")
    assert serial == target.backing.uuid.replace("-", "").lower()
    run(f"echo written by the guest | dd of=/dev/{device} bs=512 conv=sync,fsync 2>/dev/null")
    attached = disks_of(client, machine)[1]
    assert server.machine(name)["disks"][1]["written"] >= 512
    client.wait(machine.ReconfigVM_Task(detach_spec(attached)))
    assert run(found + "; true") == ""
    blocks = Path(server.machine(name + "-target")["disks"][0]["file"]).read_bytes()
    assert blocks.startswith(b"written by the guest\n")
    assert len(blocks) == DISK_BYTES

    # A snapshot while it runs, and the merge of what was written since.
    snapshot = client.wait(machine.CreateSnapshot_Task("s", "", False, False))
    layer = Path(server.machine(name)["disks"][0]["file"])
    assert layer.name.endswith("-000001-sesparse.vmdk")
    run("echo after the snapshot > /root/note; sync")
    client.wait(snapshot.RemoveSnapshot_Task(False))
    assert not layer.exists()
    assert run("cat /root/note") == "after the snapshot"
    run("echo after the merge >> /root/note; sync")

    server.guest(name, hostname=name)
    machine.ShutdownGuest()
    eventually(lambda: client.get(machine, "runtime.powerState") == "poweredOff", 60, pause=0.2)
    assert "failback-guest stopped" in said(server, name)
    assert server.report()["orphans"] == []


@pytest.mark.parametrize(
    ("controller", "firmware"),
    [
        (Device.VirtualLsiLogicSASController(key=1000, busNumber=0, sharedBus="noSharing"), "bios"),
        (Device.VirtualNVMEController(key=1000, busNumber=0), "bios"),
        (Device.VirtualAHCIController(key=1000, busNumber=0), "efi"),
    ],
    ids=["LSI SAS", "NVMe", "AHCI with EFI"],
)
def test_it_boots_from_other_controllers(
    client: Client, name: str, server: VSphere, build: Build, controller: Any, firmware: str
) -> None:
    guest = build(name=name, firmware="uefi" if firmware == "efi" else "bios")
    machine = client.create(spec_for(name, guest, controller, firmware=firmware))
    Path(server.machine(name)["disks"][0]["file"]).write_bytes(guest.disks[0].read_bytes())
    client.wait(machine.PowerOnVM_Task())
    ready(server, name)
    client.wait(machine.PowerOffVM_Task())
    assert client.get(machine, "runtime.powerState") == "poweredOff"
    assert not server.machine(name)["qemu"]


def test_a_guest_that_halts_is_off(client: Client, name: str, server: VSphere, build: Build) -> None:
    guest = build(name=name, mode="halt")
    controller = Device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    machine = client.create(spec_for(name, guest, controller))
    Path(server.machine(name)["disks"][0]["file"]).write_bytes(guest.disks[0].read_bytes())
    client.wait(machine.PowerOnVM_Task())
    eventually(lambda: client.get(machine, "runtime.powerState") == "poweredOff", 120, pause=0.5)


def test_a_card_without_a_way_out_is_alone_in_qemu_too(client: Client, name: str, server: VSphere) -> None:
    host = client.named(vim.HostSystem, "DC0_H0")
    system = client.get(host, "configManager.networkSystem")
    system.AddVirtualSwitch(name, vim.host.VirtualSwitch.Specification(numPorts=8))
    group = vim.host.PortGroup.Specification(name=name, vlanId=0, vswitchName=name, policy=vim.host.NetworkPolicy())
    system.AddPortGroup(group)
    pool = client.get(client.get(host, "parent"), "resourcePool")
    spec = machine_spec(name, deviceChange=[card(), card(name)])
    machine = client.wait(client.folder.CreateVM_Task(spec, pool, host))
    client.wait(machine.PowerOnVM_Task())
    networks = [option for option in arguments_of(server, name) if option.startswith("user,id=")]
    assert networks == ["user,id=net0", "user,id=net1,restrict=on"]
    add = Add(operation="add", device=Device.ParaVirtualSCSIController(key=1001, busNumber=1, sharedBus="noSharing"))
    with pytest.raises(TaskFailed, match="while it runs"):
        client.wait(machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[add])))
    client.wait(machine.PowerOffVM_Task())


def arguments_of(server: VSphere, name: str) -> list[str]:
    """Of the machine's QEMU, which is a child of the stand-in."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    for pid in " ".join(children_of.read_text() for children_of in children).split():
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if f"guest={name}" in arguments:
            return arguments
    raise AssertionError("QEMU does not run")
