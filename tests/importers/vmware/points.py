"""Recovery points of machines that were never exported: all that planning looks at."""

from __future__ import annotations

from typing import Any

from manifests.machine import Machine, Nic
from manifests.manifest import Disk, Index, Manifest
from pipeline.mapping import parse_mapping
from pipeline.wanted import Wanted, resolve

GIB = 1 << 30
UBUNTU = {"os_release": {"ID": "ubuntu", "VERSION_ID": "24.04"}, "kernel": "6.8.0-48-generic"}
LAN = Nic(mac="52:54:00:00:00:01", network="lan", model="vmxnet3")


def machine(**values: Any) -> Machine:
    return Machine(**{"name": "web-1", "memory_bytes": 512 << 20, "raw": UBUNTU, "nics": (LAN,)} | values)


def disk(number: int = 0, size: int = 8 * GIB, data: int = GIB, bus: str = "pvscsi", **values: Any) -> Disk:
    return Disk(
        number=number,
        lineage=f"{number:032x}",
        name=f"disk {number}",
        size=size,
        chunk_size=65536,
        bus=bus,
        boot=number == 0,
        digest="0" * 64,
        index=Index(pages="0" * 64),
        data_bytes=data,
        **values,
    )


def point(hardware: Machine | None = None, *disks: Disk) -> Manifest:
    return Manifest(
        machine=hardware or machine(),
        sequence=1,
        started="2026-01-01T00:00:00Z",
        time="2026-01-01T00:00:00Z",
        tool="test",
        run="1-1",
        consistency="crash",
        disks=disks or (disk(),),
    )


def wanted(manifest: Manifest, **mapping: Any) -> Wanted:
    """Its adapters in `VM Network`, unless the mapping says otherwise."""
    said = {"networks": {"*": "VM Network"}} | mapping
    return resolve(parse_mapping(said, where="the test"), manifest, "vmware")
