"""A machine as QEMU shall run it: the content of `machine.json` in its folder, from which its command line follows.

Paths are relative to that folder, so that it can be moved, or absolute where they lead out of the place.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal

from pydantic import Field

from importers.qemu.accelerator import Wish
from manifests.machine import Model
from pipeline.wanted import Network

FILE = "machine.json"

Bus = Literal["virtio", "virtio-scsi", "sata", "ide", "nvme", "pvscsi", "lsisas"]
Card = Literal["virtio", "e1000", "e1000e", "vmxnet3", "rtl8139"]


class Node(Model):
    """Where the bytes of a disk are."""

    file: str
    format: Literal["raw", "qcow2"] = "raw"


class DiskDefinition(Model):
    number: int
    bus: Bus
    node: Node
    """What the guest writes to: an overlay, or the staged disk itself once it was kept."""
    base: Node
    """The staged disk."""
    size: int
    serial: str = ""
    sector_size: int = 512
    boot: bool = False


class CardDefinition(Model):
    """A network adapter and what it is connected to."""

    model: Card
    mac: str
    """Never empty: QEMU would give the first card of every machine the same."""
    bridge: str = ""
    """Empty: a network of QEMU's own (user mode)."""
    open: bool = False
    """User mode: may the guest reach the outside? Forwarded ports lead into it either way."""
    address: str = ""
    """User mode: what the guest has and DHCP gives, with prefix length. Empty: QEMU's usual 10.0.2.15/24."""


class FlashDefinition(Model):
    """UEFI firmware. The variables are in `variables`, a copy of our own."""

    code: str
    code_format: Literal["raw", "qcow2"] = "raw"
    variables: str = "nvram.fd"
    variables_format: Literal["raw", "qcow2"] = "raw"
    template: str
    secure: bool = False
    """Variables are guarded by system management mode."""


class Definition(Model):
    marker: uuid.UUID
    """Of the place; also the machine's UUID (SMBIOS) and how its process is found."""
    machine: str
    """Its name at the source."""
    name: str
    purpose: Literal["rehearsal", "production"]
    binary: str
    type: Literal["q35", "pc"]
    cpus: int
    memory_bytes: int
    flash: FlashDefinition | None = None
    """None: SeaBIOS."""
    disks: tuple[DiskDefinition, ...]
    networks: tuple[Network, ...] = ()
    """As they were asked for; `cards` are what they came to."""
    cards: tuple[CardDefinition, ...] = ()
    wish: Wish = "auto"
    accelerator: Literal["kvm", "tcg"] = "tcg"
    why: str = ""
    """Why this accelerator."""
    cpu: str = ""
    display: Literal["none", "vnc", "gtk", "sdl"] = "none"
    forwards: dict[int, int] = Field(default_factory=dict)
    extra: tuple[str, ...] = ()


def load(folder: Path) -> Definition | None:
    """None: there is no machine in the folder, or a half-made one. Raises ValueError when it is damaged."""
    try:
        text = (folder / FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Definition.model_validate_json(text)
