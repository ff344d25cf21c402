"""The machine is near to what it was, and whatever cannot be so is said with what helps."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from pyVmomi import vim

from importers.vmware import guest
from importers.vmware.cards import address_type
from importers.vmware.controllers import slots_of
from importers.vmware.environment import Environment, Guest
from importers.vmware.hardware import Choice, choose_hardware, rounded, smbios_uuid
from importers.vmware.options import parse_options
from manifests.machine import Machine, Nic
from manifests.manifest import Disk
from pipeline.finding import Finding
from vmware.points import GIB, LAN, disk, machine, point, wanted

EIGHT = Environment(version=20, versions=(13, 20))


def choose(
    hardware: Machine | None = None,
    *disks: Disk,
    options: dict[str, Any] | None = None,
    environment: Environment = EIGHT,
    **mapping: Any,
) -> Choice:
    manifest = point(hardware, *disks)
    return choose_hardware(manifest.disks, wanted(manifest, **mapping), parse_options(options or {}), environment)


def worst(choice: Choice, subject: str) -> Finding:
    [found] = [f for f in choice.findings if f.subject == subject]
    return found


def test_a_machine_of_vsphere_comes_back_as_it_was() -> None:
    choice = choose(machine(cpus=4), disk(0, bus="pvscsi"), disk(1, bus="lsilogic"), disk(2, bus="sata"))
    assert [(s.bus, s.controller, s.unit) for s in choice.slots] == [
        ("pvscsi", 0, 0),
        ("lsilogic", 1, 0),
        ("sata", 0, 0),
    ]
    assert (choice.firmware, choice.secure_boot, choice.cpus, choice.cores) == ("bios", False, 4, 4)
    assert (choice.guest, choice.version, choice.memory) == ("ubuntu64Guest", 20, 512 << 20)
    assert [(c.model, c.mac, c.network) for c in choice.cards] == [("vmxnet3", LAN.mac, "VM Network")]
    assert choice.findings == ()


@pytest.mark.parametrize(
    ("bus", "platform", "raw", "expected", "driver"),
    [
        ("virtio", "kvm", {}, "pvscsi", "vmw_pvscsi"),
        ("", "azure", {}, "pvscsi", "vmw_pvscsi"),
        ("", "aws", {}, "nvme", "nvme"),
        ("nvme0", "gcp", {}, "nvme", "nvme"),
        ("virtio", "kvm", {"os": "Windows Server 2022", "os_release": None}, "lsisas", "lsi_sas"),
    ],
)
def test_a_bus_that_vsphere_lacks_becomes_one_with_a_driver_to_look_after(
    bus: str, platform: str, raw: dict[str, Any], expected: str, driver: str
) -> None:
    hardware = machine(platform=platform, raw=raw or {"os_release": {"ID": "debian", "VERSION_ID": "12"}})
    choice = choose(hardware, disk(bus=bus))
    assert choice.slots[0].bus == expected
    finding = worst(choice, "disk 0")
    assert (finding.severity, driver in finding.message) == ("warning", True)
    assert choose(hardware, disk(bus=bus), disks={0: {"bus": "sata"}}).slots[0].bus == "sata"


def test_a_bus_that_is_asked_for_and_not_there_is_an_error() -> None:
    finding = worst(choose(None, disk(), disks={0: {"bus": "virtio-scsi"}}), "disk 0")
    assert (finding.severity, "virtio-scsi" in finding.message) == ("error", True)


def test_no_disk_is_put_where_the_controller_itself_sits() -> None:
    slots, findings = slots_of(dict.fromkeys(range(60), "pvscsi"), version=13)
    assert not findings
    assert {s.unit for s in slots} == set(range(16)) - {7}
    assert [s.controller for s in slots] == [number // 15 for number in range(60)]
    assert len({(s.controller, s.unit) for s in slots}) == 60
    assert [s.key for s in slots] == [1000 + number // 15 for number in range(60)]


def test_from_hardware_version_14_a_pvscsi_controller_takes_64() -> None:
    slots, findings = slots_of(dict.fromkeys(range(70), "pvscsi"), version=14)
    assert not findings
    assert max(s.unit for s in slots if s.controller == 0) == 64
    assert {s.controller for s in slots} == {0, 1}


@pytest.mark.parametrize(("bus", "room"), [("ide", 4), ("sata", 120), ("nvme", 60), ("lsisas", 60)])
def test_what_finds_no_room_is_an_error_by_disk(bus: Any, room: int) -> None:
    slots, findings = slots_of(dict.fromkeys(range(room + 1), bus))
    assert len(slots) == room
    assert [(f.severity, f.subject) for f in findings] == [("error", f"disk {room}")]


def test_controllers_of_all_scsi_kinds_share_their_numbers() -> None:
    slots, _ = slots_of({0: "pvscsi", 1: "lsisas", 2: "lsilogic", 3: "pvscsi", 4: "nvme"})
    assert [(s.bus, s.controller, s.unit) for s in slots] == [
        ("pvscsi", 0, 0), ("lsisas", 1, 0), ("lsilogic", 2, 0), ("pvscsi", 0, 1), ("nvme", 0, 0),
    ]  # fmt: skip
    assert len({s.key for s in slots}) == 4


def test_the_guest_is_named_as_far_as_the_hosts_know_it() -> None:
    debian = machine(raw={"os_release": {"ID": "debian", "VERSION_ID": "13"}, "kernel": "6.12"})
    new = Environment(version=21, guests={g: Guest(g) for g in ("debian13_64Guest", "debian12_64Guest")})
    old = Environment(version=13, guests={g: Guest(g) for g in ("debian10_64Guest", "other4xLinux64Guest")})
    assert choose(debian, environment=new).guest == "debian13_64Guest"
    assert choose(debian, environment=old).guest == "debian10_64Guest"
    assert worst(choose(debian, environment=old), "guest").severity == "note"
    assert choose(debian, environment=Environment(version=19)).guest == "debian12_64Guest", "by the built-in table"
    assert choose(debian, options={"guest": "debian9_64Guest"}, environment=EIGHT).guest == "debian9_64Guest"


@pytest.mark.parametrize(
    ("release", "kernel", "expected"),
    [
        ({"ID": "rhel", "VERSION_ID": "9.4"}, "5.14", "rhel9_64Guest"),
        ({"ID": "ol", "VERSION_ID": "8.9", "ID_LIKE": "fedora"}, "5.4", "oracleLinux8_64Guest"),
        ({"ID": "rocky", "VERSION_ID": "9.1", "ID_LIKE": "rhel centos fedora"}, "5.14", "rockylinux_64Guest"),
        ({"ID": "linuxmint", "VERSION_ID": "22", "ID_LIKE": "ubuntu debian"}, "6.8", "ubuntu64Guest"),
        ({"ID": "amzn", "VERSION_ID": "2023"}, "6.1", "amazonlinux3_64Guest"),
        ({"ID": "arch"}, "6.12.1-arch", "other6xLinux64Guest"),
        ({"ID": "gentoo"}, "5.15", "other5xLinux64Guest"),
        ({"ID": "old"}, "3.10", "otherLinux64Guest"),
        ({}, "", "otherGuest64"),
    ],
)
def test_distributions_have_their_id(release: dict[str, str], kernel: str, expected: str) -> None:
    raw: dict[str, Any] = ({"os_release": release} if release else {}) | ({"kernel": kernel} if kernel else {})
    assert guest.pick(machine(raw=raw), "", (), 0) == expected


def test_every_id_that_is_given_exists() -> None:
    known = {str(v) for k, v in vars(vim.vm.GuestOsDescriptor.GuestOsIdentifier).items() if k.endswith("Guest")}
    known |= {str(v) for k, v in vars(vim.vm.GuestOsDescriptor.GuestOsIdentifier).items() if k.endswith("Guest64")}
    given = {*guest._NO_VERSION.values(), *guest._AMAZON.values(), guest.LAST, *guest._SINCE}
    given |= {guest_id for _least, guest_id in guest._KERNELS}
    for pattern, _first, last in guest._BY_RELEASE.values():
        given.add(pattern.format(last))
    assert given <= known


def test_secure_boot_needs_a_hardware_version_that_has_it() -> None:
    hardware = machine(firmware="uefi", secure_boot=True)
    choice = choose(hardware, options={"nvram": "fresh"})
    assert (choice.firmware, choice.secure_boot, choice.findings) == ("efi", True, ())
    old = choose(hardware, options={"nvram": "fresh"}, environment=Environment(version=11))
    assert worst(old, "firmware").severity == "error"
    assert "13" in worst(old, "firmware").message


def test_a_new_uefi_machine_has_no_boot_entries_and_that_is_said_until_it_is_known() -> None:
    hardware = machine(firmware="uefi")
    assert "BOOTX64.EFI" in worst(choose(hardware), "firmware").message
    assert choose(hardware, options={"nvram": "fresh"}).findings == ()
    assert choose(machine()).findings == ()


def test_a_tpm_stays_behind_and_its_owner_is_told() -> None:
    finding = worst(choose(machine(raw={**machine().raw, "tpm": "2.0"})), "TPM")
    assert (finding.severity, "recovery key" in finding.remedy) == ("warning", True)


def test_limits_of_the_hosts_are_kept() -> None:
    small = Environment(20, (20,), {"ubuntu64Guest": Guest("ubuntu64Guest", most_cpus=8, most_memory=GIB)}, 64, 8 * GIB)
    choice = choose(machine(cpus=16, memory_bytes=2 * GIB), environment=small)
    assert (worst(choice, "cpus").severity, worst(choice, "memory").severity) == ("error", "error")


@pytest.mark.parametrize(("cpus", "cores"), [(1, 1), (6, 6), (16, 16), (24, 12), (17, 1), (32, 16)])
def test_as_few_sockets_as_cores_allow(cpus: int, cores: int) -> None:
    assert choose(machine(cpus=cpus)).cores == cores


def test_cores_that_do_not_divide_the_cpus_are_an_error() -> None:
    choice = choose(machine(cpus=6), options={"cores": 4})
    assert worst(choice, "cpus").severity == "error"
    assert choose(machine(cpus=6), options={"cores": 3}).cores == 3


def test_memory_and_sizes_are_rounded_up_to_what_vsphere_takes() -> None:
    choice = choose(machine(memory_bytes=(512 << 20) + 1), disk(size=8 * GIB + 512))
    assert choice.memory == 516 << 20
    assert worst(choice, "memory").severity == "note"
    assert worst(choice, "disk 0").severity == "note"
    assert (rounded(1), rounded(1024), rounded(1025), rounded(0)) == (1024, 1024, 2048, 1024)


def test_disks_that_no_virtual_disk_can_be_are_errors() -> None:
    assert worst(choose(None, disk(sector_size=4096)), "disk 0").severity == "error"
    assert worst(choose(None, disk(size=63 << 40)), "disk 0").severity == "error"
    assert worst(choose(None, disk(bus="nvme"), environment=Environment(version=11)), "disk 0").severity == "error"


def test_adapters_keep_their_address_or_get_a_new_one() -> None:
    assert choose(machine(), mac="new").cards[0].mac == ""
    assert choose(machine(), mac="keep").cards[0].mac == LAN.mac
    group = machine(nics=(Nic(mac="01:00:5e:00:00:01", network="lan"),))
    assert worst(choose(group), "adapter 0").severity == "error"


@pytest.mark.parametrize(
    ("mac", "expected"),
    [
        ("", "generated"),
        ("52:54:00:00:00:01", "manual"),
        ("00:50:56:3f:00:01", "manual"),
        ("00:50:56:80:00:01", "assigned"),
        ("00:0c:29:00:00:01", "generated"),
    ],
)
def test_addresses_of_vmwares_own_ranges_are_not_called_manual(mac: str, expected: str) -> None:
    assert address_type(mac) == expected


def test_cards_without_driver_there_become_what_the_guest_surely_has() -> None:
    nics = (Nic(mac="52:54:00:00:00:01", network="lan", model="virtio"),)
    assert choose(machine(nics=nics)).cards[0].model == "vmxnet3"
    windows = machine(nics=nics, raw={"os": "Windows Server 2019"})
    assert choose(windows).cards[0].model == "e1000e"
    assert choose(windows, networks={"*": {"name": "x", "model": "vmxnet3"}}).cards[0].model == "vmxnet3"


def test_more_adapters_than_a_machine_has_are_an_error() -> None:
    nics = tuple(Nic(mac=f"52:54:00:00:00:{n:02x}", network="lan") for n in range(11))
    assert worst(choose(machine(nics=nics)), "networks").severity == "error"


def test_the_guest_reads_the_uuid_that_it_had() -> None:
    """What Linux shows on one side (first three fields little-endian) is what it shows on the other."""
    shown = uuid.UUID("12345678-1234-5678-9abc-def012345678")
    given = smbios_uuid(machine(raw={"dmi": {"product_uuid": str(shown)}}))
    assert given is not None
    assert uuid.UUID(bytes_le=given.bytes) == shown
    serial = "VMware-56 4d 12 34 56 78 12 34-9a bc de f0 12 34 56 78"
    assert smbios_uuid(machine(raw={"dmi": {"product_serial": serial, "product_uuid": str(shown)}})) == uuid.UUID(
        "564d1234-5678-1234-9abc-def012345678"
    )
    assert smbios_uuid(machine(raw={"dmi": {"product_uuid": "Not Settable"}})) is None
    assert smbios_uuid(machine(raw={"dmi": {"product_uuid": "00000000-0000-0000-0000-000000000000"}})) is None
    assert choose(machine(raw={"dmi": {"product_uuid": str(shown)}}), options={"uuid": "new"}).smbios is None
