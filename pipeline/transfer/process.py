"""Who writes: a process of a host, told apart from all others, and known to be dead where that can be known."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

MACHINE_ID = Path("/etc/machine-id")
_CONTEXT = "failback 2026 machine id v1"


@dataclass(frozen=True, slots=True)
class Process:
    """What tells whether the process that wrote a session is still the same and alive (FORMAT.md, section 11)."""

    host: str
    boot_id: str
    pid: int
    pid_start: int
    pid_namespace: str
    machine_id: str = ""

    @classmethod
    def current(cls) -> Self:
        pid = os.getpid()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        return cls(socket.gethostname(), _boot_id(), pid, _start_time(pid) or 0, namespace, _machine_id())

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The writer that a session names."""
        texts = (str(document.get(name, "")) for name in ("host", "boot_id", "pid_namespace", "machine_id"))
        host, boot_id, namespace, machine_id = texts
        return cls(host, boot_id, int(document["pid"]), int(document["pid_start"]), namespace, machine_id)

    def document(self) -> dict[str, Any]:
        """What a session says of its writer."""
        return asdict(self)

    def alive(self, here: Process) -> bool | None:
        """Whether the process runs, or None when that can't be known from `here`: another host or another container.

        Two hosts may have one name: another boot id means a reboot only on the same machine.
        """
        if self.host != here.host:
            return None
        if self.boot_id != here.boot_id:
            return False if self.machine_id and self.machine_id == here.machine_id else None
        if self.pid_namespace != here.pid_namespace:
            return None
        return _start_time(self.pid) == self.pid_start


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _machine_id() -> str:
    """What stands for this machine across reboots; empty where the system has no machine id.

    Derived, because machine-id(5) asks not to show the id itself to others.
    """
    try:
        text = MACHINE_ID.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    if len(text) != 32:  # absent until the first boot is over: empty, or "uninitialized"
        return ""
    return blake3(text.encode(), derive_key_context=_CONTEXT).hexdigest(16)


def _start_time(pid: int) -> int | None:
    """Start of a process in clock ticks after boot, or None when there is none (or only its zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] in ("Z", "X") else int(stat[19])
