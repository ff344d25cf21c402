"""Disks on their controllers.

How many disks a controller takes: AHCI has 6 ports (qemu/hw/ide/ich.c), PVSCSI 64 of which VMware uses 15, mptsas1068
8 (qemu/hw/scsi/mptsas.h, MPTSAS_NUM_PORTS), virtio-scsi 256 targets, IDE two channels of two disks.
"""

from __future__ import annotations

from collections.abc import Iterator

from importers.qemu.definition import Bus, Definition, DiskDefinition
from pipeline.target import part_of

SERIAL_LENGTH: dict[Bus, int] = {
    # virtio specification, 5.2.6 (VIRTIO_BLK_T_GET_ID); ATA: 20; NVMe: 20; qemu/hw/scsi/scsi-disk.c: 36
    "virtio": 20,
    "sata": 20,
    "ide": 20,
    "nvme": 20,
    "virtio-scsi": 36,
    "pvscsi": 36,
    "lsisas": 36,
}
_SCSI: dict[Bus, tuple[str, int]] = {
    "virtio-scsi": ("virtio-scsi-pci", 250),
    "pvscsi": ("pvscsi", 15),
    "lsisas": ("mptsas1068", 8),
}
_AHCI_PORTS = 6
IDE_DISKS = 4
ONLY_512: frozenset[Bus] = frozenset({"sata", "ide"})
"""Buses whose disks QEMU gives sectors of 512 bytes alone."""


def attach(machine: Definition) -> Iterator[str]:
    """Values of `-device` for all disks and their controllers."""
    order = {disk.number: place for place, disk in enumerate(boot_order(machine.disks))}
    for bus in dict.fromkeys(disk.bus for disk in machine.disks):
        for number, disk in enumerate(d for d in machine.disks if d.bus == bus):
            yield from _device(machine, number, disk, order[disk.number])


def boot_order(disks: tuple[DiskDefinition, ...]) -> list[DiskDefinition]:
    """Those that the source booted from first, the others by number: they may hold the loader."""
    return sorted(disks, key=lambda disk: (not disk.boot, disk.number))


def _device(machine: Definition, number: int, disk: DiskDefinition, order: int) -> Iterator[str]:
    """The disk, `number` on its bus, and the controller when it is the first there."""
    common = f"drive=disk{disk.number},bootindex={order}{_serial(disk)}"
    sectors = f",logical_block_size={disk.sector_size},physical_block_size={max(disk.sector_size, 512)}"
    # A guest that meets an I/O error is paused, not told: what it runs on can be mended, its file system less so.
    errors = ",werror=stop,rerror=stop"
    if disk.bus == "virtio":
        yield f"virtio-blk-pci,{common}{sectors}{errors}"
    elif disk.bus == "nvme":
        yield f"nvme,{common}{sectors}"
    elif disk.bus == "ide":
        yield f"ide-hd,bus=ide.{number // 2},unit={number % 2},{common}{errors}"
    elif disk.bus == "sata":
        controller, port = divmod(number, _AHCI_PORTS)
        if port == 0:
            yield f"ich9-ahci,id=sata{controller}"
        yield f"ide-hd,bus=sata{controller}.{port},{common}{errors}"
    else:
        model, most = _SCSI[disk.bus]
        controller, target = divmod(number, most)
        if target == 0:
            yield f"{model},id={disk.bus}{controller}"
        name = f",wwn={_world_wide_name(machine, disk)}" if disk.bus == "lsisas" else ""
        yield f"scsi-hd,bus={disk.bus}{controller}.0,scsi-id={target},lun=0,{common}{name}{sectors}{errors}"


def _world_wide_name(machine: Definition, disk: DiskDefinition) -> str:
    """SAS disks are told apart by it. Locally assigned: NAA 3 (SPC-4, 7.8.6.4)."""
    return f"0x3{part_of(machine.marker, 'disk', disk.number).hex[:15]}"


def _serial(disk: DiskDefinition) -> str:
    # NVMe controllers have a serial number by all means.
    serial = disk.serial or (f"failback-{disk.number}" if disk.bus == "nvme" else "")
    return f",serial={serial[: SERIAL_LENGTH[disk.bus]].replace(',', ',,')}" if serial else ""
