"""Takeover: a guest that runs where the disaster sent it, so that there is something to bring home.

It runs on its disk and, from the first consistent moment on, on overlays: the file systems are frozen by the guest's
agent, QEMU goes on in a new overlay, and what lies below it no longer changes and can be read at leisure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

from importers.qemu import agent
from importers.qemu.arguments import AGENT_SOCKET, QMP_SOCKET
from importers.qemu.qmp import Qmp
from pipeline.boot.errors import MediumError

CONSOLE = "console.log"
_PID = "pid"
_LAYERS = "layer*.qcow2"
_NODE = "disk0"


def start(folder: Path, disk: Path, *, ready: str, seconds: float = 120) -> None:
    """Boot `disk` (BIOS, raw) and return when `ready` is on its console; `folder` is empty and becomes the machine's.

    Raises MediumError with the end of the console.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512"]
    command += ["-display", "none", "-vga", "std", "-nodefaults", "-no-user-config"]
    command += ["-serial", f"file:{CONSOLE}", "-qmp", f"unix:{QMP_SOCKET},server=on,wait=off"]
    command += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={AGENT_SOCKET},server=on,wait=off"]
    command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    command += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
    command += ["-drive", f"if=none,id={_NODE},format=raw,file={disk.resolve()}"]
    command += ["-device", f"virtio-blk-pci,drive={_NODE},bootindex=0"]
    log = (folder / "qemu.log").open("wb")
    with log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    (folder / _PID).write_text(str(process.pid))
    end = time.monotonic() + seconds
    while ready not in console(folder):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            said = console(folder)[-1500:] or (folder / "qemu.log").read_text(errors="replace")
            raise MediumError(f"the machine in {folder} did not come up: {said}")
        time.sleep(0.2)


def console(folder: Path) -> str:
    """What the guest wrote to its serial port so far."""
    try:
        return (folder / CONSOLE).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def moment(folder: Path) -> Path:
    """A consistent moment: returns the file that holds the disk as it is now, and that is not written any more."""
    number = len(list(folder.glob(_LAYERS))) + 1
    with Qmp(folder) as qmp:
        before = Path(next(d for d in qmp.execute("query-block") if d["device"] == _NODE)["inserted"]["file"])
        agent.ask(folder, "guest-fsfreeze-freeze", seconds=30)
        try:
            qmp.execute(
                "blockdev-snapshot-sync",
                device=_NODE,
                snapshot_file=str((folder / f"layer{number}.qcow2").resolve()),
                format="qcow2",
            )
        finally:
            agent.ask(folder, "guest-fsfreeze-thaw", seconds=30)
    return folder / before


def tell(folder: Path, command: str) -> str:
    """Run a shell command in the guest; its output. Raises MediumError when it fails."""
    done = agent.run(folder, ["/bin/sh", "-c", command], stdin=b"", seconds=60, turn=nullcontext(), check=lambda: None)
    if done.exit_code:
        raise MediumError(
            f"`{command}` ended with {done.exit_code} in the guest: {done.error.decode(errors='replace')}"
        )
    return done.output.decode(errors="replace")


def stop(folder: Path, *, seconds: float = 60) -> None:
    """Press the power button and wait until the machine is off; then hard."""
    number = int((folder / _PID).read_text())
    try:
        descriptor = os.pidfd_open(number)
    except ProcessLookupError:
        return
    try:
        with Qmp(folder) as qmp:
            qmp.execute("system_powerdown")
        end = time.monotonic() + seconds
        while _runs(number) and time.monotonic() < end:
            time.sleep(0.2)
        if _runs(number):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _runs(number: int) -> bool:
    try:
        return b"qemu-system" in Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return False
