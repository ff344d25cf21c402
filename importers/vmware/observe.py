"""What can be seen of a machine: power, what its Tools tell, its serial log, its screen."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED
from importers.vmware.files import delete, fetch
from importers.vmware.properties import values_of
from importers.vmware.tasks import question_of, wait
from pipeline.errors import FailbackError, TargetError, TargetMismatch
from pipeline.place import Observation, Power
from pipeline.target import Control

CONSOLE = 64 << 10
"""Bytes of the serial log that are shown."""
_NO_MATTER: tuple[type[Exception], ...] = (REFUSED, FailbackError, *CUT)
_POWER: dict[str, Power] = {"poweredOn": "on", "poweredOff": "off", "suspended": "paused"}
_HEARTBEAT = {"green": True, "yellow": True, "red": False}
"""Gray: there are no Tools, or they do not run."""
_PATHS = (
    "runtime.powerState",
    "guestHeartbeatStatus",
    "guest.toolsRunningStatus",
    "guest.ipAddress",
    "guest.hostName",
    "guest.net",
)


def observe(connection: Connection, machine: Any, datacenter: str, serial: str) -> Observation:
    """`serial`: datastore path of its serial log; empty: it has none."""
    try:
        values = values_of(connection, machine, *_PATHS)
    except TargetMismatch:
        return Observation("off", reason="the machine is gone")
    power = _POWER.get(str(values.get("runtime.powerState")), "unknown")
    console = _console(connection, datacenter, serial)
    if power != "on":
        return Observation(power, console=console)
    question = question_of(connection, machine)
    running = values.get("guest.toolsRunningStatus") == "guestToolsRunning"
    return Observation(
        "paused" if question else power,
        heartbeat=_HEARTBEAT.get(str(values.get("guestHeartbeatStatus"))) if running else None,
        addresses=_addresses(values),
        hostname=str(values.get("guest.hostName") or ""),
        console=console,
        reason=f"it waits for an answer: {question.text}" if question else "",
    )


def picture(connection: Connection, machine: Any, name: str, datacenter: str, control: Control) -> bytes | None:
    """Its screen as PNG, by way of a file that is deleted again; None when there is none to be had now."""
    about = f"cannot take a picture of {name}"
    try:
        task = connection.order(machine.CreateScreenshot_Task, about)
        path = str(wait(connection, task, control, about, machine=machine))
        data = fetch(connection, datacenter, path)
        delete(connection, datacenter, path)
    except TargetError:
        return None
    return data


def serial_of(devices: tuple[Any, ...]) -> str:
    """Datastore path of the first serial port that writes to a file; empty: none does."""
    for device in devices:
        if isinstance(device, vim.vm.device.VirtualSerialPort):
            file = getattr(device.backing, "fileName", None)
            if file:
                return str(file)
    return ""


def _console(connection: Connection, datacenter: str, serial: str) -> str:
    if not serial:
        return ""
    try:
        data = fetch(connection, datacenter, serial, tail=CONSOLE)
    except _NO_MATTER:
        return ""  # it is one witness of several, and may be locked by its host
    return (data or b"").decode(errors="replace")


def _addresses(values: Any) -> tuple[str, ...]:
    found = [str(values.get("guest.ipAddress") or "")]
    for card in values.get("guest.net") or ():
        found += [str(address) for address in card.ipAddress or ()]
    usable = [a for a in dict.fromkeys(found) if a and not a.lower().startswith("fe80:")]
    return tuple(usable)
