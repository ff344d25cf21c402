"""Switch a machine on and off."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

from importers.qemu import agent
from importers.qemu.arguments import SERIAL_LOG
from importers.qemu.definition import Definition
from importers.qemu.durable import sync_folder
from importers.qemu.events import EVENTS_FILE, read_events
from importers.qemu.options import BINARY
from importers.qemu.process import LOCK_FILE, Process, claim, running, runs
from importers.qemu.programs import find_program
from importers.qemu.qmp import Qmp, QmpError, QmpGone
from importers.qemu.script import START
from pipeline.errors import BootError, TargetBusy, TargetError
from pipeline.target import Control

QEMU_LOG = "qemu.log"
_SPEAKER = f"{BINARY}: "
_START_SECONDS = 60.0
_PRESS_AGAIN_SECONDS = 10.0
"""A guest that is still booting does not hear the power button."""
_QUIT_SECONDS = 5.0
_STEP = 0.05

_KNOWN_TROUBLE = (
    # (what QEMU says, what the user can do)
    ("Could not set up host forwarding rule", "a port is already in use: choose another in the mapping's `forwards`"),
    ("bridge helper failed", "allow the bridge in /etc/qemu/bridge.conf (`allow NAME`), or use a `user` network"),
    ("Cannot allocate memory", "free memory on this host, or lower `memory:` in the mapping"),
    ("cannot set up guest memory", "free memory on this host, or lower `memory:` in the mapping"),
    ("No space left on device", "make room on this host"),
)


def switch_on(folder: Path, machine: Definition, control: Control) -> None:
    """Returns when QEMU says that it runs, also when it did before. A machine that was off again by then is for
    `observe` to tell. Raises BootError with what QEMU said, TargetBusy, TargetError."""
    find_program(machine.binary)
    lock = settled(folder, machine.marker, control)
    if lock is not None:
        try:
            _spawn(folder, lock)
        finally:
            os.close(lock)
    _await(folder, machine, control)


def settled(folder: Path, marker: uuid.UUID, control: Control) -> int | None:
    """Wait for a process that starts to be QEMU, and for one that ends to be gone. None: it runs; else the right to
    start it, a descriptor to close."""
    end = time.monotonic() + _START_SECONDS
    while not runs(folder, marker):
        lock = claim(folder)
        if lock is not None:
            return lock
        if time.monotonic() > end:
            raise TargetError(
                f"a process that is no QEMU holds {folder / LOCK_FILE}", remedy="find it with `fuser` and end it"
            )
        control.check()
        time.sleep(_STEP)
    return None


def _spawn(folder: Path, lock: int) -> None:
    """Start the script in a session of its own, which outlives us. Its process inherits the lock."""
    # The events are emptied, never gone: that they exist says that the machine was switched on once.
    (folder / EVENTS_FILE).write_bytes(b"")
    sync_folder(folder)
    if (folder / SERIAL_LOG).exists():
        (folder / SERIAL_LOG).replace(folder / f"{SERIAL_LOG}.1")
    with (folder / QEMU_LOG).open("wb") as log:
        subprocess.run(
            ["setsid", "--fork", "sh", START],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=[lock],
            check=True,
        )


def _await(folder: Path, machine: Definition, control: Control) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        alive = _lives(folder, machine)
        try:
            with Qmp(folder, seconds=1.0) as qmp:
                qmp.execute("query-status")
                return
        except QmpGone:
            pass
        if not alive:
            if read_events(folder).end:
                return
            raise _trouble(folder, machine)
        if time.monotonic() > end:
            raise BootError(
                f"QEMU runs {machine.name} but does not answer", remedy=f"see {folder / QEMU_LOG}, then stop it"
            )
        control.check()
        time.sleep(_STEP)


def _lives(folder: Path, machine: Definition) -> bool:
    """Whether there is a process, be it only about to become QEMU, or about to end."""
    lock = claim(folder)
    if lock is None:
        return True
    os.close(lock)
    return runs(folder, machine.marker)


def _trouble(folder: Path, machine: Definition) -> TargetError | BootError:
    said = last_words(folder)
    if "Failed to get" in said and "lock" in said:
        return TargetBusy(f"a disk of {machine.name} is used by another program: {said}", remedy="stop that one first")
    remedy = next((remedy for sign, remedy in _KNOWN_TROUBLE if sign in said), f"see {folder / QEMU_LOG}")
    return BootError(f"QEMU did not start {machine.name}: {said or 'it gave no reason'}", remedy=remedy)


def last_words(folder: Path) -> str:
    """The last that QEMU wrote for people; hints that follow an error have no name in front."""
    try:
        lines = (folder / QEMU_LOG).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.removeprefix(_SPEAKER).strip() for line in lines if line.startswith(_SPEAKER)]
    return (said or [line.strip() for line in lines if line.strip()] or [""])[-1]


def switch_off(folder: Path, machine: Definition, *, seconds: float, control: Control) -> str:
    """Gracefully for `seconds`, then hard; returns when no process is left. How it went off, when not by itself."""
    lock = settled(folder, machine.marker, control)
    if lock is not None:
        os.close(lock)
        return ""
    with running(folder, machine.marker) as process:
        if process is None or (seconds > 0 and _graceful(folder, process, seconds, control)):
            return ""
        _hard(folder, process)
    return f"the guest did not shut down within {seconds:g} s and was switched off hard" if seconds > 0 else ""


def kill(folder: Path, marker: uuid.UUID, control: Control) -> None:
    """Off at once, without a word to the guest or to QEMU: for what is thrown away."""
    lock = settled(folder, marker, control)
    if lock is not None:
        os.close(lock)
        return
    with running(folder, marker) as process:
        if process is not None:
            process.kill()


def _graceful(folder: Path, process: Process, seconds: float, control: Control) -> bool:
    """Whether it shut down. A guest that is paused cannot: not waited for."""
    end = time.monotonic() + seconds
    if not _press(folder, by_agent=True):
        return process.wait(0)
    while (left := end - time.monotonic()) > 0:
        if process.wait(min(left, _PRESS_AGAIN_SECONDS), control.check):
            return True
        _press(folder, by_agent=False)
    return process.wait(0)


def _press(folder: Path, *, by_agent: bool) -> bool:
    """Ask the guest to shut down: by its agent and by the power button. Whether it can hear."""
    try:
        with Qmp(folder) as qmp:
            if not qmp.execute("query-status")["running"]:
                return False
            qmp.execute("system_powerdown")
        if by_agent:
            agent.tell(folder, "guest-shutdown", {"mode": "powerdown"})
    except QmpError:
        return False
    except (OSError, QmpGone):
        pass  # no agent; or QEMU is about to end, which the caller waits for
    return True


def _hard(folder: Path, process: Process) -> None:
    """As pulling the plug, but what QEMU holds for the disks is written."""
    try:
        with Qmp(folder) as qmp:
            qmp.execute("quit")
    except (QmpError, QmpGone):
        pass  # it hangs, or is ending
    if not process.wait(_QUIT_SECONDS):
        process.kill()
