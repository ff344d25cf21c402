"""What can be seen of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from importers.qemu import agent
from importers.qemu.agent import NONSENSE, AgentError
from importers.qemu.arguments import SERIAL_LOG
from importers.qemu.definition import Definition
from importers.qemu.events import Events, read_events
from importers.qemu.machine import started
from importers.qemu.power import last_words
from importers.qemu.process import runs
from importers.qemu.qmp import Qmp, QmpGone
from importers.qemu.trim import trim
from pipeline.place import Observation, Power

_SECONDS = 2.0
CONSOLE_BYTES = 128 << 10

_STATES: dict[str, tuple[Power, str]] = {
    # qemu/qapi/run-state.json, RunState
    "running": ("on", ""),
    "guest-panicked": ("paused", "the guest panicked"),
    "io-error": ("paused", "I/O error on a disk"),
    "internal-error": ("paused", "QEMU cannot go on (internal error)"),
    "watchdog": ("paused", "the guest's watchdog expired"),
    "shutdown": ("off", "the guest shut down"),
    "suspended": ("on", "the guest sleeps (suspended to memory)"),
    "paused": ("paused", "it was paused by somebody"),
    "prelaunch": ("paused", "QEMU waits for the order to start it"),
}


@dataclass(frozen=True, slots=True)
class Guest:
    """What the guest agent tells. `heartbeat` None: there is none."""

    heartbeat: bool | None = None
    addresses: tuple[str, ...] = ()
    hostname: str = ""


def observe(folder: Path, machine: Definition) -> Observation:
    """From the process, QMP, the events, the console's log and the guest agent."""
    trim(folder)
    if not runs(folder, machine.marker):
        return _off(folder)
    try:
        with Qmp(folder, seconds=_SECONDS) as qmp:
            status = str(qmp.execute("query-status")["status"])
            agent_open = agent_is_there(qmp)
    except QmpGone as error:
        if not runs(folder, machine.marker):
            return _off(folder)
        return Observation("unknown", console=console_tail(folder), reason=error.message)
    events = read_events(folder)
    power, reason = _STATES.get(status, ("paused", status))
    if status == "io-error" and events.io_error:
        reason = events.io_error
    if power != "on":
        return Observation(power, console=console_tail(folder), reason=reason)
    guest = look_at_guest(folder, events, agent_open=agent_open)
    console = console_tail(folder)
    return Observation("on", guest.heartbeat, guest.addresses, guest.hostname, console, reason or events.loop)


def _off(folder: Path) -> Observation:
    """After the process ended, so that all it wrote is there."""
    return Observation("off", console=console_tail(folder), reason=_why_off(folder, read_events(folder)))


def console_tail(folder: Path) -> str:
    """The end of the serial console's text; a character that is cut or broken shows as U+FFFD."""
    try:
        with (folder / SERIAL_LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - CONSOLE_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _why_off(folder: Path, events: Events) -> str:
    if not started(folder):
        return "it was never switched on"
    if events.end:
        return f"{events.end} after a panic" if events.panic and "panic" not in events.end else events.end
    said = last_words(folder)
    return "QEMU is gone without a word: killed, crashed, or this host went down" + (f" ({said})" if said else "")


def agent_is_there(qmp: Qmp) -> bool:
    """Whether something in the guest opened the agent's port."""
    return any(chardev["label"] == "agent" and chardev["frontend-open"] for chardev in qmp.execute("query-chardev"))


def look_at_guest(folder: Path, events: Events, *, agent_open: bool) -> Guest:
    """What its agent tells. `agent_open`: there is one now."""
    if not agent_open:
        return Guest(False if events.agent_seen else None)
    try:
        agent.ask(folder, "guest-ping")
    except AgentError:
        pass  # it has no such command, but it answers
    except OSError:
        return Guest(False)
    try:
        return Guest(True, agent.addresses(folder), agent.hostname(folder))
    except (OSError, AgentError, *NONSENSE):
        return Guest(True)  # it lives, and tells no more than that
