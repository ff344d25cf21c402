"""The machine near to what it was: board, controllers and cards that its system has drivers for."""

from __future__ import annotations

import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Literal

from importers.qemu.buses import IDE_DISKS, ONLY_512
from importers.qemu.definition import Bus, Card, CardDefinition
from importers.qemu.options import QemuOptions
from manifests.machine import Machine, Model
from manifests.manifest import Disk
from pipeline.finding import Finding
from pipeline.target import part_of
from pipeline.wanted import Network, Wanted

MOST_CPUS = {"q35": 288, "pc": 255}
"""qemu/hw/i386/pc_q35.c and pc_piix.c, max_cpus, of QEMU 6.2 to 8."""
USER = "user"
BRIDGE = "bridge:"

_BUSES: dict[str, Bus] = {
    "virtio": "virtio",
    "virtio-blk": "virtio",
    "virtio-scsi": "virtio-scsi",
    "sata": "sata",
    "ahci": "sata",
    "ata": "sata",
    "ide": "ide",
    "nvme": "nvme",
    "pvscsi": "pvscsi",
    "paravirtual": "pvscsi",
    "lsisas": "lsisas",
    "lsisas1068": "lsisas",
    "mptsas": "lsisas",
    "sas": "lsisas",
    # VMware's parallel LSI Logic is a 53c1030, which QEMU lacks; the SAS one comes from the same family of drivers.
    "lsilogic": "lsisas",
    "buslogic": "lsisas",
}
_CARDS: dict[str, Card] = {
    "virtio": "virtio",
    "virtio_net": "virtio",
    "virtio-net": "virtio",
    "virtio-net-pci": "virtio",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "vmxnet3": "vmxnet3",
    "vmxnet": "vmxnet3",
    "rtl8139": "rtl8139",
    "8139cp": "rtl8139",
    "8139too": "rtl8139",
}
_VIRTIO_PLATFORMS = ("kvm", "qemu", "openstack", "gcp", "oracle", "alibaba", "huawei", "fusioncompute")


class StagedDisk(Model):
    """What must be known of a disk of the point to plug it in, and to know it again."""

    number: int
    digest: str
    size: int
    bus: str = ""
    boot: bool = False
    serial: str = ""
    sector_size: int = 512

    @classmethod
    def of(cls, disk: Disk) -> StagedDisk:
        return cls(
            number=disk.number,
            digest=disk.digest,
            size=disk.size,
            bus=disk.bus,
            boot=disk.boot,
            serial=disk.serial,
            sector_size=disk.sector_size,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and what is to be said about it."""

    board: Literal["q35", "pc"]
    buses: dict[int, Bus]
    cards: tuple[CardDefinition, ...]
    findings: tuple[Finding, ...]


def choose_hardware(
    disks: Sequence[StagedDisk], wanted: Wanted, networks: Sequence[Network], options: QemuOptions, marker: uuid.UUID
) -> Choice:
    """Never fails: what cannot be had is an error among the findings."""
    findings: list[Finding] = []
    buses = {disk.number: _bus(disk, wanted, findings) for disk in disks}
    board = _board(buses, wanted.hardware, options, findings)
    for disk in disks:
        if disk.sector_size != 512 and buses[disk.number] in ONLY_512:
            findings.append(
                Finding(
                    "error",
                    f"disk {disk.number}",
                    f"it has sectors of {disk.sector_size} bytes, which {buses[disk.number]} disks of QEMU cannot have",
                    "put it on another bus in the mapping: virtio, virtio-scsi, nvme or pvscsi",
                )
            )
    cards, doubts = cards_of(networks, set(buses.values()), marker)
    findings += doubts
    if wanted.hardware.cpus > MOST_CPUS[board]:
        findings.append(
            Finding(
                "error",
                "cpus",
                f"QEMU's {board} machine has {MOST_CPUS[board]} CPUs at most; {wanted.hardware.cpus} are wanted",
                "lower `cpus:` in the mapping",
            )
        )
    return Choice(board, buses, cards, tuple(findings))


def _bus(disk: StagedDisk, wanted: Wanted, findings: list[Finding]) -> Bus:
    target = wanted.disks.get(disk.number)
    if target is not None and target.bus is not None:
        return target.bus
    named = _BUSES.get(disk.bus.lower())
    if disk.bus.lower() in ("lsilogic", "buslogic"):
        findings.append(
            Finding(
                "warning",
                f"disk {disk.number}",
                f"QEMU has no {disk.bus} controller; the disk goes to an LSI SAS 1068",
                "if the machine does not find its disk, name a bus it has drivers for in the mapping: sata, ide",
            )
        )
    if named is not None:
        return named
    bus: Bus = "virtio" if wanted.hardware.platform in _VIRTIO_PLATFORMS else "sata"
    if disk.bus.startswith("nvme") or (wanted.hardware.platform == "aws" and not disk.bus):
        bus = "nvme"
    message, remedy = f"its bus at the source ({disk.bus}) is none that QEMU has; it gets {bus}", ""
    if not disk.bus:
        message, remedy = f"its bus at the source was not recorded; it gets {bus}", "export with --bus, or "
    remedy += "name another one with `bus:` in the mapping if the machine has no driver for it"
    findings.append(Finding("note", f"disk {disk.number}", message, remedy))
    return bus


def _board(
    buses: dict[int, Bus], hardware: Machine, options: QemuOptions, findings: list[Finding]
) -> Literal["q35", "pc"]:
    """q35, but pc where there are IDE disks: q35 has no such controller."""
    ide = sum(bus == "ide" for bus in buses.values())
    if ide > IDE_DISKS:
        message = f"{ide} disks are to be IDE; there is room for {IDE_DISKS}"
        findings.append(Finding("error", "disks", message, "put some on another bus in the mapping, such as sata"))
    if ide and options.machine == "q35":
        message = "QEMU's q35 machine has no IDE controller"
        findings.append(Finding("error", "machine", message, "leave `machine:` out of the options, or use sata"))
    if hardware.secure_boot and (ide or options.machine == "pc"):
        message = "secure boot needs QEMU's q35 machine, which has no IDE controller"
        findings.append(Finding("error", "firmware", message, "put the disks on sata in the mapping"))
    return options.machine or ("pc" if ide else "q35")


def cards_of(
    networks: Sequence[Network], buses: Set[Bus], marker: uuid.UUID
) -> tuple[tuple[CardDefinition, ...], list[Finding]]:
    """Adapters for these networks, in a machine whose disks are on `buses`."""
    findings: list[Finding] = []
    cards = tuple(_card(number, network, buses, marker, findings) for number, network in enumerate(networks))
    return cards, findings


def _card(number: int, network: Network, buses: Set[Bus], marker: uuid.UUID, findings: list[Finding]) -> CardDefinition:
    model = _CARDS.get(network.model.lower())
    if model is None:
        model = "virtio" if buses & {"virtio", "virtio-scsi"} else "e1000e"
        if network.model:
            findings.append(
                Finding(
                    "note",
                    f"adapter {number}",
                    f"its model ({network.model}) is none that QEMU has; it becomes {model}",
                    "name another one with `model:` in the mapping if the machine has no driver for it",
                )
            )
    name = network.name or ""
    if name.startswith(BRIDGE):
        return CardDefinition(model=model, mac=network.mac or _mac(marker, number), bridge=name.removeprefix(BRIDGE))
    if name not in ("", USER):
        findings.append(
            Finding(
                "error",
                f"network {name}",
                f"QEMU has no network {name!r}",
                "use `user`, `bridge:NAME` with a bridge of this host, or `isolated: true` in the mapping",
            )
        )
    return CardDefinition(
        model=model,
        mac=network.mac or _mac(marker, number),
        open=name == USER,
        address=_address(network.addresses),
    )


def _mac(marker: uuid.UUID, number: int) -> str:
    """Stable, and locally administered (second lowest bit of the first byte, IEEE 802)."""
    six = bytearray(part_of(marker, "network", number).bytes[:6])
    six[0] = six[0] & 0xFC | 0x02
    return six.hex(":")


def _address(addresses: Sequence[str]) -> str:
    """The first IPv4 address that QEMU can put a network around."""
    for text in addresses:
        try:
            interface = IPv4Interface(text)
        except ValueError:
            continue
        network = interface.network
        usable = network.prefixlen <= 29 and interface.ip not in (network[0], network[-1])
        if usable and not interface.is_loopback and not interface.is_link_local:
            return str(interface)
    return ""
