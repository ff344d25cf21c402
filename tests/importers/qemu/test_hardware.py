"""A machine near to what it was."""

from __future__ import annotations

import uuid

import pytest

from importers.qemu.hardware import Choice, StagedDisk, choose_hardware
from importers.qemu.options import QemuOptions, parse_options
from manifests.machine import Machine
from pipeline.errors import UsageError
from pipeline.mapping import DiskTarget
from pipeline.wanted import Network, Wanted

MARKER = uuid.UUID(int=1)


def staged(*buses: str, sector_size: int = 512) -> list[StagedDisk]:
    return [
        StagedDisk(number=n, digest="0" * 64, size=1 << 20, bus=bus, sector_size=sector_size)
        for n, bus in enumerate(buses)
    ]


def chosen(
    disks: list[StagedDisk],
    *networks: Network,
    machine: Machine | None = None,
    targets: dict[int, DiskTarget] | None = None,
    options: QemuOptions | None = None,
) -> Choice:
    wanted = Wanted("vm", machine or Machine(name="vm"), networks, targets or {})
    return choose_hardware(disks, wanted, networks, options or QemuOptions(), MARKER)


def errors(choice: Choice) -> list[str]:
    return [finding.subject for finding in choice.findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("bus", "there"),
    [
        ("virtio", "virtio"),
        ("SATA", "sata"),
        ("nvme", "nvme"),
        ("pvscsi", "pvscsi"),
        ("lsisas1068", "lsisas"),
        ("lsilogic", "lsisas"),
        ("ide", "ide"),
        ("usb", "sata"),
    ],
)
def test_disks_go_to_the_bus_they_had_or_the_nearest(bus: str, there: str) -> None:
    choice = chosen(staged(bus))
    assert choice.buses == {0: there}
    assert errors(choice) == []
    assert bool(choice.findings) is (bus in ("lsilogic", "usb"))


def test_the_mapping_has_the_last_word_on_a_bus() -> None:
    assert chosen(staged("virtio"), targets={0: DiskTarget(bus="pvscsi")}).buses == {0: "pvscsi"}


def test_unknown_disks_of_a_platform_with_virtio_get_virtio() -> None:
    assert chosen(staged(""), machine=Machine(name="vm", platform="kvm")).buses == {0: "virtio"}
    assert chosen(staged(""), machine=Machine(name="vm", platform="aws")).buses == {0: "nvme"}


def test_a_bus_that_was_not_recorded_is_told_from_one_that_qemu_lacks() -> None:
    [unsaid], [unknown] = chosen(staged("")).findings, chosen(staged("usb")).findings
    assert unsaid.message == "its bus at the source was not recorded; it gets sata"
    assert "export with --bus" in unsaid.remedy
    assert "(usb) is none that QEMU has" in unknown.message


def test_ide_disks_need_the_older_board() -> None:
    assert chosen(staged("ide")).board == "pc"
    assert chosen(staged("sata")).board == "q35"
    assert errors(chosen(staged(*["ide"] * 5))) == ["disks"]
    assert errors(chosen(staged("ide"), options=QemuOptions(machine="q35"))) == ["machine"]


def test_what_cannot_be_had_is_an_error_with_its_remedy() -> None:
    assert errors(chosen(staged("sata", sector_size=4096))) == ["disk 0"]
    assert errors(chosen(staged("nvme", sector_size=4096))) == []
    assert errors(chosen(staged("sata"), machine=Machine(name="vm", cpus=300))) == ["cpus"]
    assert errors(chosen(staged("sata"), Network(name="lan"))) == ["network lan"]
    secure = Machine(name="vm", firmware="uefi", secure_boot=True)
    assert errors(chosen(staged("ide"), machine=secure)) == ["firmware"]
    assert all(f.remedy for f in chosen(staged("ide"), Network(name="lan"), machine=secure).findings)


def test_adapters_keep_their_address_and_model_or_get_ones_that_stay() -> None:
    kept, new = (
        Network(mac="52:54:00:00:00:01", model="e1000", name="user"),
        Network(model="ena", addresses=("fe80::1/64", "10.0.0.255/24", "10.1.2.3/24"), name="bridge:br7"),
    )
    first, second = chosen(staged("sata"), kept, new).cards
    assert (first.mac, first.model, first.open) == ("52:54:00:00:00:01", "e1000", True)
    assert (second.model, second.bridge) == ("e1000e", "br7")
    assert chosen(staged("virtio"), kept, new).cards[1].model == "virtio"
    assert second.mac == chosen(staged("sata"), kept, new).cards[1].mac
    assert int(second.mac[:2], 16) & 3 == 2, "not a locally administered unicast address"
    isolated = new.model_copy(update={"name": None})
    [card] = chosen(staged("sata"), isolated).cards
    assert (card.open, card.address) == (False, "10.1.2.3/24")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accelerater": "kvm"}, "accelerater is unknown"),
        ({"accelerator": "xen"}, "accelerator is 'xen'"),
        ({"forwards": {"70000": 80}}, "forwards.70000"),
        ({"cpu": "max; reboot"}, "cpu is"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_options(options)
