"""A guest in a QEMU of its own: its console as text, QMP, the guest agent, and ports forwarded to its services."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import die_with_parent, free_port

from scripts.guest import GuestDisks

OVMF = Path("/usr/share/OVMF")

BUSES: dict[str, list[str]] = {
    "virtio-blk": ["-device", "virtio-blk-pci,drive={drive},bootindex={order}"],
    "virtio-scsi": [
        "-device",
        "virtio-scsi-pci,id=h{order}",
        "-device",
        "scsi-hd,bus=h{order}.0,drive={drive},bootindex={order}",
    ],
    "sata": ["-device", "ide-hd,bus=ide.{order},drive={drive},bootindex={order}"],
    "nvme": ["-device", "nvme,serial=guest-{order},drive={drive},bootindex={order}"],
    "pvscsi": ["-device", "pvscsi,id=h{order}", "-device", "scsi-hd,bus=h{order}.0,drive={drive},bootindex={order}"],
    "lsi-sas": [
        "-device",
        "mptsas1068,id=h{order}",
        "-device",
        "scsi-hd,bus=h{order}.0,drive={drive},wwn=0x5000c5000000000{order},bootindex={order}",
    ],
}
"""QEMU's arguments for one disk on each bus, on machine type q35 (its SATA controller is `ide`).

Linux' mptsas attaches no disk whose SAS address is 0, and QEMU takes the disk's WWN for it.
"""


@dataclass
class Machine:
    """A running guest."""

    process: subprocess.Popen[bytes]
    folder: Path
    http_port: int
    ssh_port: int
    begun: float = field(default_factory=time.monotonic)
    console: str = ""
    """All that the guest has written to its serial port so far."""

    def wait_for(self, text: str, seconds: float = 120) -> float:
        """Read the console until `text` is there; returns the seconds since QEMU's start. Fails with what is there."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while text not in self.console:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            data = self.process.stdout.read1() if ready else b""  # type: ignore[attr-defined]
            if not data:
                raise AssertionError(f"{text!r} is not on the console:\n{self.console[-4000:]}")
            self.console += data.decode(errors="replace")
        return time.monotonic() - self.begun

    def wait_end(self, seconds: float = 60) -> int:
        """Wait until QEMU has ended; returns its exit code."""
        assert self.process.stdout is not None
        self.console += self.process.communicate(timeout=seconds)[0].decode(errors="replace")
        return self.process.returncode

    def page(self) -> dict[str, str]:
        """The guest's HTTP page as names and values."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """One command to QEMU's monitor."""
        with _connect(self.folder / "qmp") as channel, channel.makefile("rw") as stream:
            stream.readline()
            for line in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                answer = _ask(stream, line)
        return answer

    def agent(self, command: str, **arguments: Any) -> Any:
        """One command to the guest agent."""
        with _connect(self.folder / "agent") as channel, channel.makefile("rw") as stream:
            return _ask(stream, {"execute": command, "arguments": arguments})

    def agent_sends(self, command: str) -> None:
        """One command to the guest agent that it doesn't answer when it succeeds."""
        with _connect(self.folder / "agent") as channel, channel.makefile("rw") as stream:
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()

    def picture(self, path: Path) -> Path:
        """The guest's screen as a PNG."""
        self.qmp("screendump", filename=str(path), format="png")
        return path


def _connect(path: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(30)
    channel.connect(str(path))
    return channel


def _ask(stream: Any, command: dict[str, Any]) -> Any:
    stream.write(json.dumps(command) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "event" not in answer:
            return answer["return"]


@contextmanager
def run(guest: GuestDisks, folder: Path, buses: Sequence[str], *, options: Sequence[str] = ()) -> Iterator[Machine]:
    """Boot a guest with its disks on `buses`, one for each; QEMU is gone when the context ends."""
    http_port, ssh_port = free_port(), free_port()
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512"]
    command += ["-display", "none", "-serial", "stdio", "-no-user-config", "-nodefaults", "-vga", "std"]
    command += ["-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
    command += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"]
    command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    forwards = f"hostfwd=tcp:127.0.0.1:{http_port}-:80,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"
    command += ["-netdev", f"user,id=net,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
    if guest.recipe.firmware == "uefi":
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", folder / "vars.fd")
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"]
        command += ["-drive", f"if=pflash,format=raw,file={folder}/vars.fd"]
    for order, (disk, bus) in enumerate(zip(guest.disks, buses, strict=True)):
        command += ["-drive", f"if=none,id=disk{order},format=raw,file={disk}"]
        command += [part.format(drive=f"disk{order}", order=order) for part in BUSES[bus]]
    process = subprocess.Popen(
        [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=die_with_parent
    )
    try:
        yield Machine(process, folder, http_port, ssh_port)
    finally:
        process.kill()
        process.wait()
