"""start.sh, word for word: a machine is what its command line says."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from importers.qemu.definition import CardDefinition, Definition, DiskDefinition, FlashDefinition, Node
from importers.qemu.script import readme, start_script

GOLDEN = Path(__file__).parent / "golden"
MARKER = uuid.UUID("6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11")


def disk(number: int, bus: str, **more: object) -> DiskDefinition:
    values = {
        "number": number,
        "bus": bus,
        "node": Node(file=f"disk{number}.qcow2", format="qcow2"),
        "base": Node(file=f"../stage/disk{number}.raw"),
        "size": 1 << 30,
    }
    return DiskDefinition.model_validate(values | more)


BIOS = Definition(
    marker=MARKER,
    machine="web-1",
    name="web-1, again",
    purpose="production",
    binary="/usr/bin/qemu-system-x86_64",
    type="q35",
    cpus=2,
    memory_bytes=(1 << 30) + 1,
    disks=(
        disk(0, "virtio", serial="a,b", sector_size=4096),
        disk(1, "pvscsi", boot=True),
        disk(2, "lsisas"),
        disk(3, "nvme"),
        disk(4, "virtio-scsi", serial="s" * 50),
        disk(5, "pvscsi"),
    ),
    cards=(
        CardDefinition(model="vmxnet3", mac="52:54:00:00:00:01", bridge="br0"),
        CardDefinition(model="virtio", mac="52:54:00:00:00:02", open=True, address="192.168.7.1/24"),
        CardDefinition(model="e1000e", mac="52:54:00:00:00:03"),
    ),
    why="asked for",
    forwards={8080: 80, 2222: 22},
    display="vnc",
    extra=("-device", "usb-tablet"),
)
UEFI = BIOS.model_copy(
    update={
        "name": "db-1",
        "purpose": "rehearsal",
        "accelerator": "kvm",
        "why": "it works here",
        "flash": FlashDefinition(code="/fw/CODE.fd", template="/fw/VARS.fd", secure=True),
        "disks": tuple(disk(n, "sata") for n in range(8)),
        "cards": (),
        "forwards": {},
        "display": "none",
        "extra": (),
    }
)
IDE = BIOS.model_copy(
    update={
        "type": "pc",
        "disks": (*(disk(n, "ide") for n in range(3)), disk(3, "virtio", node=Node(file="../stage/disk3.raw"))),
        "cards": (),
        "display": "gtk",
    }
)


@pytest.mark.parametrize(("name", "machine"), [("bios", BIOS), ("uefi", UEFI), ("ide", IDE)])
def test_the_start_script_is_the_one_that_was_agreed_on(name: str, machine: Definition) -> None:
    assert start_script(machine) == (GOLDEN / f"{name}.sh").read_text()


def test_the_description_says_what_a_person_wants_to_know() -> None:
    text = readme(BIOS)
    assert "disk 1: 1073741824 bytes on pvscsi, disk1.qcow2 over ../stage/disk1.raw, boots first" in text
    assert "adapter 1: virtio 52:54:00:00:00:02, reaches the outside through this host" in text
    assert "127.0.0.1:8080 -> 80" in text
    assert "adapter 2: e1000e 52:54:00:00:00:03, isolated" in text
    assert "UEFI (OVMF) with secure boot" in readme(UEFI)
    assert "kvm: it works here" in readme(UEFI)
