"""The hardware of the machine to export: flags, a file, this host, what the last point says; the first wins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from manifests.machine import Machine
from pipeline.errors import UsageError

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NIC = (
    "a network adapter is mac=aa:bb:cc:dd:ee:ff,network=NAME,address=10.0.0.5/24,model=NAME; each part may be left out"
)
_DISK = frozenset({"bus", "boot", "serial"})


def memory_bytes(text: str) -> int:
    """`4G`, `512 MiB`, or a plain number of MiB."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not an amount of memory", remedy="write 4G or 512M; a plain number is in MiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_nic(text: str) -> dict[str, Any]:
    """`mac=…,network=…,address=…,address=…,model=…`."""
    found: dict[str, Any] = {}
    addresses: list[str] = []
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in ("mac", "network", "model", "address") or name in found:
            raise UsageError(f"--nic {text}: {part!r} is not understood", remedy=_NIC)
        if name == "address":
            addresses.append(value)
        else:
            found[name] = value
    return {**found, "addresses": addresses}


def split_file(document: Any, where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A hardware file's machine and its disks (bus, boot, serial, in the order of --disk)."""
    if not isinstance(document, dict):
        raise UsageError(f"{where} is not a hardware description", remedy="write names and values, such as cpus: 4")
    values = {str(name): value for name, value in document.items()}
    disks = values.pop("disks", None) or []
    if not isinstance(disks, list) or not all(isinstance(d, dict) and _DISK.issuperset(d) for d in disks):
        raise UsageError(f"{where}: disks is not a list of bus, boot and serial", remedy="correct the file")
    if "memory" in values:
        values["memory_bytes"] = memory_bytes(str(values.pop("memory")))
    return values, disks


def describe(name: str, layers: Sequence[Mapping[str, Any]], *, where: str) -> Machine:
    """The machine `name`: of each property the value in the first layer that has it. Raises UsageError."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values.update(layer)
    values["name"] = name
    try:
        return Machine.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "hardware"
        raise UsageError(
            f"the hardware of {name} is not possible: {place}: {first['msg']}",
            remedy=f"correct it in {where}; known are {', '.join(n for n in Machine.model_fields if n != 'name')}",
        ) from None
