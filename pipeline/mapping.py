"""The mapping: how a machine of the source side becomes one of the target's. Common to all targets; read from YAML.

    name: "{name}-home"            # what the machine is called there; {name} is its name here
    cpus: 4                        # left out: as at the source
    memory: 8GiB
    firmware: uefi
    networks:                      # network at the source -> network there; "*" is for all others
      "VM Network": prod-lan
      backup: null                 # no adapter for it
      "*": {isolated: true}
    mac: keep                      # or: new
    storage: datastore1            # for all disks that say nothing else
    folder: /failback
    disks:
      0: {bus: pvscsi, storage: fast}
    options:                       # a platform's own, validated by its importer
      qemu: {accelerator: tcg}
    machines:                      # the same keys for single machines, which win
      db-1: {memory: 16GiB}

Unknown keys are refused, so that a typing error does not pass for a wish.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from manifests.machine import Machine, Model, Nic

Bus = Literal["virtio", "virtio-scsi", "sata", "ide", "nvme", "pvscsi", "lsisas"]


class Network(Model):
    """One adapter of the machine as it is to be. `name` None: isolated, nothing outside can be reached."""

    name: str | None = None
    mac: str = ""
    model: str = ""
    addresses: tuple[str, ...] = ()


class NetworkTarget(Model):
    """Where adapters of one source network go."""

    name: str | None = None
    isolated: bool = False
    model: str = ""


class DiskTarget(Model):
    """What one disk is to be on the target; empty: as the platform does by itself, near the source."""

    bus: Bus | None = None
    storage: str = ""
    format: str = ""


class MachineMapping(Model):
    """What may be said for all machines or for one."""

    name: str | None = None
    cpus: int | None = Field(default=None, ge=1, le=4096)
    memory: str | int | None = None
    firmware: Literal["bios", "uefi"] | None = None
    networks: dict[str, str | NetworkTarget | None] = Field(default_factory=dict)
    mac: Literal["keep", "new"] | None = None
    storage: str | None = None
    folder: str | None = None
    disks: dict[int, DiskTarget] = Field(default_factory=dict)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Mapping(MachineMapping):
    """The whole document."""

    machines: dict[str, MachineMapping] = Field(default_factory=dict)
