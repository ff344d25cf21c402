"""The disks of this host, found by what they are and never by their path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.agent.orders import DiskName
from pipeline.errors import TargetMismatch
from pipeline.exporters.blockdev import BlockDevice
from pipeline.exporters.usage import device_holder
from pipeline.writers.device import same_serial

_NEVER = ("ram", "zram", "sr", "fd", "nbd", "mtdblock")
"""Kernel names of what is no disk of a machine. A network block device is one of somebody else's."""


@dataclass(frozen=True, slots=True)
class FoundDisk:
    """A whole disk that is attached now."""

    path: str
    serials: tuple[str, ...]
    size: int
    sector_size: int
    model: str
    read_only: bool
    in_use: str
    """Who uses it; empty when nobody does."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"serials": list(self.serials)}


def block_devices() -> frozenset[str]:
    """Names and sizes of the kernel's block devices: another set after a disk was plugged in. Costs next to nothing."""
    found = set()
    for folder in Path("/sys/block").iterdir():
        try:
            found.add(f"{folder.name} {(folder / 'size').read_text()}")
        except OSError:
            continue  # it was unplugged while we looked
    return frozenset(found)


def attached_disks() -> list[FoundDisk]:
    """All of them, those without a medium left out."""
    return sorted(_looked_at(), key=lambda disk: disk.path)


def find_disk(name: DiskName) -> FoundDisk:
    """The one disk with this serial number and this size. Raises TargetMismatch, which says what is there instead."""
    disks = attached_disks()
    named = [disk for disk in disks if same_serial(name.serial, disk.serials)]
    found = [disk for disk in named if disk.size == name.size]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise TargetMismatch(
            f"{name} is not one disk: {' and '.join(disk.path for disk in found)} both are",
            remedy="detach one of them: two paths to one disk, or a copy with the same number, cannot be told apart",
        )
    if named:
        sizes = ", ".join(f"{disk.path}: {disk.size} bytes" for disk in named)
        raise TargetMismatch(
            f"{name} is not here: the disk with this number has another size ({sizes})",
            remedy="is it the disk you mean? nothing was written",
        )
    known = "; ".join(f"{d.path} {'/'.join(d.serials) or 'without a number'} {d.size}" for d in disks) or "no disk"
    raise TargetMismatch(f"{name} is not attached here; there is {known}", remedy="attach it, and order again")


def _looked_at() -> Iterator[FoundDisk]:
    for folder in Path("/sys/block").iterdir():
        if folder.name.startswith(_NEVER):
            continue
        path = f"/dev/{folder.name.replace('!', '/')}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            device = BlockDevice.of(fd)
            if device is None or not (size := device.size):
                continue
            yield FoundDisk(
                path,
                tuple(device.serials()),
                size,
                device.sector_size,
                device.attribute("device/model"),
                device.read_only,
                device_holder(device.number) or "",
            )
        except OSError:
            continue  # it was detached while we looked
        finally:
            os.close(fd)
