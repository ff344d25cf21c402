"""Recipe: which guest is to be built."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import UsageError

Firmware = Literal["bios", "uefi"]
Role = Literal["system", "loader", "root", "data"]
Mode = Literal["normal", "no-loader", "panic", "hang", "halt", "reboot", "no-http"]

LAYOUTS: tuple[tuple[Role, ...], ...] = (
    ("system",),
    ("system", "data"),
    ("loader", "root"),
    ("loader", "root", "data"),
)
"""Disks of a guest: boot loader and root file system on one or on two, and a second file system or none."""

MIB = 1 << 20
SMALLEST = 128 * MIB

_NAMES = uuid.UUID("b0a5bf0e-9c6f-4b86-a3a6-5b3c1b0a4c11")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One guest. Raises UsageError for what can't be built.

    `size` in bytes is that of the disk with the root file system, and of the data disk. `mode` is how the guest
    behaves: the firmware finds no loader; the kernel panics, hangs, powers off or resets before there is a service; the
    machine boots and only its HTTP service is not up. The word in `/etc/failback-guest/mode` does the same from within.
    """

    firmware: Firmware = "bios"
    disks: tuple[Role, ...] = ("system",)
    mode: Mode = "normal"
    name: str = "guest"
    size: int = 512 * MIB

    def __post_init__(self) -> None:
        if self.firmware not in get_args(Firmware):
            raise UsageError(f"no firmware {self.firmware}", remedy=f"choose from {', '.join(get_args(Firmware))}")
        if self.mode not in get_args(Mode):
            raise UsageError(f"no mode {self.mode}", remedy=f"choose from {', '.join(get_args(Mode))}")
        if self.disks not in LAYOUTS:
            choices = "; ".join(", ".join(layout) for layout in LAYOUTS)
            raise UsageError(f"no guest has the disks {', '.join(self.disks)}", remedy=f"choose from: {choices}")
        if not self.name.replace("-", "").isalnum() or not self.name.isascii() or len(self.name) > 60:
            raise UsageError(f"a guest can't be named {self.name!r}", remedy="letters, digits and dashes, up to 60")
        if self.size < SMALLEST or self.size % MIB:
            raise UsageError(f"a guest's disk can't have {self.size} bytes", remedy="128 MiB or more, in whole MiB")

    def uuid(self, of: str) -> uuid.UUID:
        """A number for a part of this guest: the same at every build, another for another name, firmware or layout."""
        return uuid.uuid5(_NAMES, f"{self.name}/{self.firmware}/{','.join(self.disks)}/{of}")
