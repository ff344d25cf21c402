"""The source protocol: the side that runs a machine now, and gives it up when it goes home.

A source is a class that an entry point of the group `failback.sources` names. It is made with one argument, a
`SourceContext`, and says in `abilities` what it cannot do. It never learns where the machine goes.

The verbs of a cutover, in this order:

    reading(final=False)   any number of times, while the machine works: exports
    quiesce                its services stop: nothing it would acknowledge from now on is lost
    reading(final=True)    the last point, of what quiesce left
    stop                   power off
    prove_stopped          the platform itself says that it is off
    lock                   it cannot start by itself: no autostart, no high availability, nobody's click by mistake
    retire                 after the commit: whoever looks after it may take it away. Starts nothing, deletes nothing

and the way back, from wherever the cutover had come to: `resume` (unlock, power on, services start). `resume` of a
machine that was never quiesced, stopped or locked changes nothing: one that a person switched off stays off.

With `quiesce="none"` there is no quiesce (Unsupported): stop, prove and lock come first, and the last point is read
from what is off. `reading(final=True)` of a machine that is neither quiesced nor off raises SourceError: somebody
brought it back to work, and what it acknowledges now would be lost.

**Again after a kill.** Every verb may be called again with the same arguments after a kill at any moment, or after an
answer was lost, and then goes on or finds that all is done. `observe` says what the platform shows, never what a verb
remembers to have done.

**Fencing.** `epoch` is the number of the ownership (`pipeline.runs.ownership`) under which a caller acts; it grows
with every change of sides. `quiesce`, `stop`, `lock`, `resume` and `retire` keep the highest they were called with, at
the platform if it can hold that (a note of the machine), else in the context's journal, and refuse a lower one with
`Superseded`, changing nothing: a conductor that slept through a rollback does not end it when it wakes up. They look
before each effect, not only when they begin, for a conductor may sleep in the midst of a verb; so a verb that takes
long may end with `Superseded` after it did something, which the later one has seen or undone.

A machine is named as in the repository; `settings` are what the plan says of it for this source, validated by it.

Errors: SourceBusy when another process of failback works on the machine just now; SourceError and its kin for what the
platform refuses; SourceUnavailable when it does not answer, or did not say how it ended: look again. Unsupported for
what it cannot do at all; UsageError for wrong settings; Cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from manifests.machine import Machine
from manifests.manifest import Consistency
from pipeline.catalogue import Point
from pipeline.finding import Finding
from pipeline.place import Power
from pipeline.target import Control, Journal
from pipeline.transfer.export_request import DiskSource


@dataclass(frozen=True, slots=True)
class SourceAbilities:
    """What a source can do. Callers plan by these."""

    reads: bool = True
    """It gives the machine's disks. False: points are exported by something else (cron on the machine, an agent)."""
    changes: bool = False
    """It knows which blocks changed since the last point, so that a final export reads no more than that."""
    quiesce: Literal["services", "freeze", "none"] = "none"
    """services: what the plan names is stopped in the guest; freeze: its file systems only; none: the machine has to be
    stopped before the final export, and downtime grows by its shutdown."""
    proof: Literal["platform", "command", "none"] = "platform"
    """Who says that it is off: the platform's own reading, a user's command, or nobody (a person has to)."""
    locks: bool = True
    """It can keep the machine from starting by itself."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is made with."""

    state: Path
    """A folder of this source's own on this host; losing it loses time, never data. May not exist yet."""
    control: Control
    journal: Callable[[str], Journal]
    """Durable notes about the machine of that name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the plan says for the whole source: addresses, credentials' names, ..."""
    run: str = ""
    """On whose behalf, for commands of the user; empty: none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Disks of one moment, open to be exported; all of them, in the machine's order."""

    disks: Sequence[DiskSource]
    machine: Machine | None
    """Hardware as the platform shows it; None: as the parent point or the plan says."""
    consistency: Consistency


@dataclass(frozen=True, slots=True)
class SourceState:
    """What the platform shows of one machine now."""

    power: Power
    locked: bool
    quiesced: bool = False
    epoch: int = 0
    """The highest that it was touched with; 0: never."""
    detail: str = ""
    """For people: where it runs, what says that it is off, ..."""

    @property
    def proved_off(self) -> bool:
        return self.power == "off"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The proof that a machine is off. `seen` says what was asked and what was answered, for the record."""

    by: Literal["platform", "command"]
    seen: str


class Source(Protocol):
    """One platform where machines run now. One thread calls it for one machine; several machines may be worked on at
    once."""

    abilities: SourceAbilities
    """The most that it can do for any machine."""

    def __init__(self, context: SourceContext) -> None:
        """Cheap: nothing is connected before the first verb. Raises UsageError for wrong options."""

    def able(self, machine: str, settings: Mapping[str, Any]) -> SourceAbilities:
        """What it can do for this machine, as it is set up: callers act on these. Asks nobody. Raises UsageError."""

    def preflight(self, machine: str, settings: Mapping[str, Any]) -> list[Finding]:
        """Everything that can be known beforehand: the machine is there, rights, tools in the guest, change maps.
        Changes nothing."""

    def observe(self, machine: str, settings: Mapping[str, Any]) -> SourceState:
        """Cheap enough to be called every second. Raises SourceUnavailable: not known is not off."""

    def reading(
        self, machine: str, settings: Mapping[str, Any], *, parent: Point | None, final: bool
    ) -> AbstractContextManager[Reading]:
        """Open the disks as they are at one moment, and let go of them at the end. `parent` is the newest point: what
        changed since may be all that is read. When the point that was exported is committed, call `exported`. The
        exporters are the reading's: they are closed with it."""

    def exported(self, machine: str, settings: Mapping[str, Any], point: Point) -> None:
        """The last reading became this point: changes count from it. Never needed: a call that was lost costs the next
        reading at most the advantage of its change map."""

    def quiesce(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        """What it acknowledged before this returns is on its disks; afterwards it acknowledges nothing. Of one that is
        off there is nothing to quiesce: it stays so."""

    def stop(self, machine: str, settings: Mapping[str, Any], *, epoch: int, seconds: float = 120.0) -> None:
        """Gracefully for so long, then hard; at once where it is quiesced."""

    def prove_stopped(self, machine: str, settings: Mapping[str, Any]) -> Stopped:
        """Raises SourceError when it runs, and Unsupported when nobody can say."""

    def lock(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        """Only of one that is off. Refuses one that runs."""

    def resume(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        """Returns when the platform says that it runs and its services were told to start."""

    def retire(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        """Refuses one that runs."""

    def close(self) -> None:
        """Let go of connections. A reading that is open ends; what was quiesced, stopped or locked stays so, for the
        next process that goes on."""
