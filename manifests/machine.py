"""The hardware description of a protected machine."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from manifests.text import PlainJson, Shown

_MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


class Model(BaseModel):
    """Values are frozen; unknown fields are refused, so that a typing error in a file is not silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nic(Model):
    """A network adapter."""

    mac: str = Field(default="", description="aa:bb:cc:dd:ee:ff, or empty to let the target choose")
    network: Shown = Field(default="", description="name of the network or port group at the source")
    model: Shown = Field(default="", description="virtio, vmxnet3, e1000e, … at the source")
    addresses: tuple[Shown, ...] = Field(default=(), description="IPv4 and IPv6 addresses with prefix length")

    @field_validator("mac")
    @classmethod
    def _mac(cls, value: str) -> str:
        lower = value.lower().replace("-", ":")
        if lower and not _MAC.match(lower):
            raise ValueError(f"{value!r} is not a MAC address")
        return lower


class Machine(Model):
    """What a machine is, apart from its disks."""

    name: str
    firmware: Literal["bios", "uefi"] = "bios"
    secure_boot: bool = False
    cpus: int = Field(default=1, ge=1, le=4096)
    memory_bytes: int = Field(default=1 << 30, ge=1 << 20, description="bytes")
    nics: tuple[Nic, ...] = ()
    platform: Shown = Field(default="", description="where it ran: vmware, qemu, aws, physical, …")
    raw: PlainJson = Field(default_factory=dict, description="the platform's own description, kept as it was")
