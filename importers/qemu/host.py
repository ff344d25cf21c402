"""This host as a place for machines."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_INTERFACES = Path("/sys/class/net")
_HELPERS = tuple(
    Path(path)
    for path in (
        "/usr/lib/qemu/qemu-bridge-helper",
        "/usr/libexec/qemu-bridge-helper",
        "/usr/lib64/qemu/qemu-bridge-helper",
    )
)


def memory_bytes() -> tuple[int, int]:
    """(all, available without swapping); proc_meminfo(5)."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _MEMORY.read_text(), re.MULTILINE)
    kib: dict[str, str] = dict(found)
    return int(kib["MemTotal"]) << 10, int(kib["MemAvailable"]) << 10


def free_bytes(folder: Path) -> int:
    """Of the file system that holds the folder, or would."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def is_bridge(name: str) -> bool:
    return (_INTERFACES / name / "bridge").is_dir()


def bridges() -> list[str]:
    return sorted(entry.name for entry in _INTERFACES.iterdir() if (entry / "bridge").is_dir())


def bridge_helper() -> str:
    """What is missing for QEMU to plug machines into bridges; empty: nothing is known to."""
    helper = next((path for path in _HELPERS if path.exists()), None)
    if helper is None:
        return "qemu-bridge-helper is not installed"
    if os.geteuid() != 0 and not helper.stat().st_mode & 0o4000:
        return f"{helper} is not set-uid root: `chmod u+s {helper}`, or run as root"
    return ""
