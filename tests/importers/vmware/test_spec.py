"""The specification is taken by the simulator, and the machine that comes of it is the one that was meant."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from importers.vmware import datastores, inventory, networks
from importers.vmware.connection import Connection
from importers.vmware.environment import Environment
from importers.vmware.folders import folders_needed, make_folder, remove_folder
from importers.vmware.hardware import Choice, choose_hardware, rounded
from importers.vmware.machines import find_machine
from importers.vmware.options import parse_options
from importers.vmware.properties import values_of
from importers.vmware.spec import MACHINE, MARKER, NewDisk, OldDisk, disk_change, home_of, import_spec, machine_spec
from manifests.machine import Nic
from vmware.points import disk, machine, point, wanted
from vmware.site import Control, Site, devices_of, do, marker

HARDWARE = machine(
    cpus=4,
    firmware="uefi",
    secure_boot=True,
    raw={"dmi": {"product_uuid": "12345678-1234-5678-9abc-def012345678"}, **machine().raw},
    nics=(
        Nic(mac="52:54:00:00:00:01", network="lan", model="vmxnet3"),
        Nic(mac="52:54:00:00:00:02", network="dmz", model="e1000e"),
    ),
)
DISKS = (disk(0), disk(1, bus="nvme"), disk(2, bus="sata", size=(1 << 30) + 512))


def choice_of(**options: Any) -> Choice:
    manifest = point(HARDWARE, *DISKS)
    return choose_hardware(manifest.disks, wanted(manifest), parse_options(options), Environment(version=19))


def spec_of(
    connection: Connection, site: inventory.Site, choice: Choice, disks: tuple[Any, ...], **options: Any
) -> Any:
    lan = networks.find_network(connection, site, "VM Network")
    dmz = networks.find_network(connection, site, "DC0_DVPG0") if connection.is_vcenter else lan
    return machine_spec(
        "web-1 home",
        choice,
        parse_options(options),
        marker(1),
        place=marker(2),
        machine="web-1",
        datastore="LocalDS_0",
        disks=disks,
        backings=[networks.backing_of(connection, lan), networks.backing_of(connection, dmz)],
    )


def new_disks(choice: Choice, datastores: tuple[str, ...]) -> tuple[NewDisk, ...]:
    return tuple(
        NewDisk(slot, rounded(disk.size), store)
        for slot, disk, store in zip(choice.slots, DISKS, datastores, strict=True)
    )


def prepare(connection: Connection, site: inventory.Site, disks: tuple[NewDisk, ...]) -> None:
    """The folders that vSphere does not make by itself."""
    home = home_of("web-1 home", marker(1))
    for path in folders_needed(disks, "LocalDS_0", home):
        store = datastores.find_datastore(connection, site, path.split("]")[0].removeprefix("["))
        make_folder(connection, site, store, home)


@pytest.mark.parametrize("where", ["vcenter", "esxi"])
def test_the_machine_is_the_one_that_was_meant(request: pytest.FixtureRequest, where: str) -> None:
    target: Site = request.getfixturevalue(where)
    connection = target.connect()
    site = target.place(connection)
    choice = choice_of()
    second = "LocalDS_1" if where == "vcenter" else "LocalDS_0"
    disks = new_disks(choice, ("LocalDS_0", second, second))
    prepare(connection, site, disks)
    spec = spec_of(connection, site, choice, disks, notes="ours")
    made = do(connection, lambda: site.vm_folder.object.CreateVM_Task(spec, site.pool.object, None))
    assert find_machine(connection, marker(1)) == made
    seen = values_of(
        connection,
        made,
        *("name", "config.uuid", "config.firmware", "config.bootOptions", "config.hardware.numCPU", "config.version"),
        *("config.hardware.numCoresPerSocket", "config.hardware.memoryMB", "config.annotation", "config.guestId"),
        *("config.extraConfig", "runtime.powerState"),
    )
    assert seen["name"] == "web-1 home"
    assert seen["config.uuid"] == "78563412-3412-7856-9abc-def012345678"
    assert (seen["config.firmware"], seen["config.bootOptions"].efiSecureBootEnabled) == ("efi", True)
    assert (seen["config.hardware.numCPU"], seen["config.hardware.numCoresPerSocket"]) == (4, 4)
    assert (seen["config.hardware.memoryMB"], seen["config.annotation"]) == (512, "ours")
    assert (seen["config.guestId"], seen["config.version"]) == ("ubuntu64Guest", "vmx-19")
    assert seen["runtime.powerState"] == "poweredOff"
    settings = {o.key: o.value for o in seen["config.extraConfig"]}
    assert settings[MARKER] == str(marker(2))
    assert settings[MACHINE] == "web-1"
    assert settings["disk.EnableUUID"] == "TRUE"
    devices = devices_of(connection, made)
    buses = {d.key: d for d in devices if isinstance(d, vim.vm.device.VirtualController)}
    disks = [d for d in devices if isinstance(d, vim.vm.device.VirtualDisk)]
    kinds = [type(buses[d.controllerKey]) for d in disks]
    device = vim.vm.device
    assert kinds == [device.ParaVirtualSCSIController, device.VirtualNVMEController, device.VirtualAHCIController]
    assert [d.capacityInBytes for d in disks] == [8 << 30, 8 << 30, (1 << 30) + 1024]
    files = [d.backing.fileName for d in disks]
    assert len({file.rpartition("/")[2] for file in files}) == 3, "each its own name, on whatever datastore"
    assert [file.split("]")[0] + "]" for file in files] == ["[LocalDS_0]", f"[{second}]", f"[{second}]"]
    cards = [d for d in devices if isinstance(d, device.VirtualEthernetCard)]
    assert [type(c) for c in cards] == [device.VirtualVmxnet3, device.VirtualE1000e]
    assert [(c.macAddress, c.addressType) for c in cards] == [(n.mac, "manual") for n in HARDWARE.nics]
    if where == "vcenter":
        assert cards[1].backing.port.portgroupKey


def test_the_same_specification_opens_an_import_lease(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    choice = choice_of()
    disks = new_disks(choice, ("LocalDS_0", "LocalDS_1", "LocalDS_1"))
    prepare(connection, site, disks)
    spec = spec_of(connection, site, choice, disks)
    lease = connection.order(
        lambda: site.pool.object.ImportVApp(import_spec(spec), site.vm_folder.object, None), "cannot import"
    )
    state = "initializing"
    while state == "initializing":
        state = str(values_of(connection, lease, "state")["state"])
    assert state == "ready"
    info = lease.info
    urls = [u.url for u in info.deviceUrl if u.disk]
    assert len(set(urls)) == 3, "two disks with one address would overwrite each other"
    assert find_machine(connection, marker(1)) == info.entity
    connection.order(lease.HttpNfcLeaseAbort, "cannot abort")


def test_a_disk_that_exists_is_plugged_in_where_it_belongs(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    choice = choice_of()
    disks = new_disks(choice, ("LocalDS_0", "LocalDS_0", "LocalDS_0"))
    spec = spec_of(connection, site, choice, disks[:1])
    made = do(connection, lambda: site.vm_folder.object.CreateVM_Task(spec, site.pool.object, None))
    [first] = [d for d in devices_of(connection, made) if isinstance(d, vim.vm.device.VirtualDisk)]
    file = str(first.backing.fileName)
    remove = vim.vm.device.VirtualDeviceSpec(operation="remove", device=first)
    do(connection, lambda: made.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[remove])))
    back = disk_change(OldDisk(choice.slots[0], file, "independent_persistent"))
    do(connection, lambda: made.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[back])))
    [again] = [d for d in devices_of(connection, made) if isinstance(d, vim.vm.device.VirtualDisk)]
    assert (again.backing.fileName, again.backing.diskMode) == (file, "independent_persistent")
    assert again.unitNumber == 0


def test_a_pulled_cable_is_none_that_the_guest_plugs_in(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    backing = networks.backing_of(connection, networks.find_network(connection, site, "VM Network"))
    spec = machine_spec(
        "apart", choice_of(), parse_options({}), marker(1), place=marker(2), machine="web-1", datastore="LocalDS_0",
        backings=[backing, backing], connected=False,
    )  # fmt: skip
    made = do(connection, lambda: site.vm_folder.object.CreateVM_Task(spec, site.pool.object, None))
    cards = [d for d in devices_of(connection, made) if isinstance(d, vim.vm.device.VirtualEthernetCard)]
    assert [(c.connectable.startConnected, c.connectable.allowGuestControl) for c in cards] == [(False, False)] * 2


def test_formats_policies_and_modes_go_into_the_backing() -> None:
    slot = choice_of().slots[0]
    kinds = {f: disk_change(NewDisk(slot, 1024, "ds", f)).device.backing for f in ("thin", "thick", "eager")}
    assert {f: (b.thinProvisioned, b.eagerlyScrub) for f, b in kinds.items()} == {
        "thin": (True, False), "thick": (False, False), "eager": (False, True),
    }  # fmt: skip
    assert kinds["thin"].fileName == "[ds]"
    with_policy = disk_change(NewDisk(slot, 1024, "ds", profile="aa6d5a82"))
    assert with_policy.profile[0].profileId == "aa6d5a82"
    assert disk_change(NewDisk(slot, 1024, "ds")).profile == []


def test_names_of_files_are_plain_whatever_the_machine_is_called() -> None:
    assert home_of("web-1", marker(1)).startswith("web-1-")
    assert home_of("Büro / [old] 1", marker(1)) == f"B-ro-old-1-{marker(1).hex[:8]}"
    assert home_of("日本", marker(1)).startswith("machine-")
    assert home_of("web-1", marker(1)) != home_of("web-1", marker(2))
    assert len(home_of("x" * 500, marker(1))) < 80


def test_a_folder_may_be_made_and_removed_twice(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    store = datastores.find_datastore(connection, site, "LocalDS_1")
    for _again in range(2):
        make_folder(connection, site, store, "web-1-0000")
    assert remove_folder(connection, site.datacenter.object, "[LocalDS_1] web-1-0000", Control()) is True
    assert remove_folder(connection, site.datacenter.object, "[LocalDS_1] web-1-0000", Control()) is False
