"""What QEMU said about a machine while nobody listened.

start.sh gives QEMU a second QMP monitor whose input is a file with one command (which makes it send events) and whose
output is appended to another. So nothing is lost between two commands of ours, and the reason for the end of the
process is known after it. The events are those of qemu/qapi/run-state.json, block-core.json and char.json.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS_FILE = "events.in"
COMMANDS = '{"execute": "qmp_capabilities"}\n'
EVENTS_FILE = "events.log"

_TAIL = 1 << 20
"""Bytes that are looked at: thousands of events. A machine that resets all the time writes some 100 a second."""
_LOOP_SECONDS = 120.0
_LOOP_RESETS = 3
_ENDS = {
    "guest-shutdown": "the guest shut down",
    "guest-reset": "the guest reset",
    "guest-panic": "the guest panicked",
    "host-signal": "QEMU was ended by a signal from outside",
    "host-qmp-quit": "it was switched off",
    "host-ui": "its window was closed",
    "host-error": "an error of the host",
}


@dataclass(frozen=True, slots=True)
class Events:
    """What happened since the machine was switched on."""

    end: str = ""
    """Why the process ended, or was about to. Empty: it did not say."""
    panic: bool = False
    resets: tuple[float, ...] = ()
    """When, in seconds since 1970."""
    io_error: str = ""
    """The last one."""
    agent_seen: bool = False
    """A guest agent opened its port at some time."""

    @property
    def loop(self) -> str:
        """Why this looks like a machine that resets for ever; empty: it does not."""
        recent = sum(at > time.time() - _LOOP_SECONDS for at in self.resets)
        if recent < _LOOP_RESETS:
            return ""
        return f"it keeps resetting: {recent} times in the last {_LOOP_SECONDS:.0f} s"


def read_events(folder: Path) -> Events:
    """Nothing happened when there is no file."""
    try:
        with (folder / EVENTS_FILE).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return Events()
    end, panic, io_error, agent_seen = "", False, "", False
    resets: list[float] = []
    for line in lines:
        event = _event(line)
        data: dict[str, Any] = event.get("data", {})
        match event.get("event"):
            case "RESET" if data.get("guest"):
                resets.append(event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6)
            case "SHUTDOWN":
                end = _ENDS.get(data.get("reason", ""), f"QEMU ended: {data.get('reason')}")
            case "GUEST_PANICKED":
                panic = True
            case "BLOCK_IO_ERROR":
                what = "no space left at the host" if data.get("nospace") else data.get("reason", "")
                io_error = (
                    f"I/O error on {data.get('node-name') or data.get('device')} ({data.get('operation')}): {what}"
                )
            case "VSERPORT_CHANGE":
                agent_seen = agent_seen or bool(data.get("open"))
    return Events(end, panic, tuple(resets), io_error, agent_seen)


def _event(line: bytes) -> dict[str, Any]:
    """Empty for a line that was cut."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
