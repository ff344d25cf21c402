"""The values that an importer gives: places, stages, builds, and what can be seen of a machine.

Callers keep Place, Stage and Build as JSON between commands (`to_json`, `from_json`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pipeline.errors import CorruptObject
from pipeline.laps import Steps
from pipeline.progress import Counters
from pipeline.wanted import Network

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Purpose = Literal["rehearsal", "production"]
State = Literal["absent", "prepared", "staging", "staged", "layered", "running", "kept"]
Power = Literal["on", "off", "paused", "unknown"]
Ref = Dictionary[str, str]
"""An importer's own handles (path, managed object id, volume id, ...), as texts. Nobody else looks into them."""


class _Value:
    """What can be kept as JSON."""

    __slots__ = ()

    def to_json(self) -> str:
        """All fields; `from_json` gives an equal value."""
        return bytes(_adapter(type(self)).dump_json(self)).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises CorruptObject when this is not what `to_json` wrote."""
        try:
            value: Self = _adapter(cls).validate_json(text)
        except ValueError as error:
            raise CorruptObject(f"a kept {cls.__name__.lower()} cannot be read: {error}") from error
        return value


@dataclass(frozen=True, slots=True)
class DiskRestored:
    """One disk that now equals the point (or would, after a dry run)."""

    number: int
    target: str
    mode: str
    """full, refresh, hashed (the target was read and only what differs was written), or unchanged."""
    reason: str
    digest: str
    proof: str
    """How the digest was proved on the target."""
    counters: Counters
    to_move: int = 0
    """Forecast: stored bytes that would be fetched."""
    seconds: float = 0.0
    """That it took; 0: not known, or nothing was waited for."""


@dataclass(frozen=True, slots=True)
class Stage(_Value):
    """Target disks that equal recovery point `machine`@`sequence`.

    `guard` is opaque: equal to what the platform shows as long as nobody else touched the disks. `complete` is False
    only for an instant stage that is still being filled. `disks` says what the call that gave this stage did; a stage
    that was found has none.
    """

    machine: str
    sequence: int
    guard: str
    disks: tuple[DiskRestored, ...] = ()
    complete: bool = True
    ref: Ref = field(default_factory=dict)
    steps: Steps = field(default_factory=dict)
    """Where the time of the call that gave this stage went, as far as it counted that. A stage that was found has
    none."""


@dataclass(frozen=True, slots=True)
class Build(_Value):
    """A machine on a layer of a stage. `marker` is that of its place."""

    marker: uuid.UUID
    purpose: Purpose
    name: str
    """Name of the machine on the platform."""
    networks: tuple[Network, ...] = ()
    booted: bool = False
    """It was powered on at least once: its layer may hold what the guest wrote."""
    ref: Ref = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place(_Value):
    """Where disks of one machine are or will be. `marker` finds it again on the platform."""

    marker: uuid.UUID
    machine: str
    state: State
    stage: Stage | None = None
    """In staged, layered, running; in kept the stage that the disks came from, if that is known."""
    build: Build | None = None
    """In layered, running, kept."""
    adopted: bool = False
    ref: Ref = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a port of the guest is reached from here."""

    host: str
    port: int
    relayed: bool = False
    """Something between accepts connections in the guest's stead: only an answer, or `accepted`, proves anything."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that ran in the guest."""

    exit_code: int
    output: bytes
    error: bytes


@dataclass(frozen=True, slots=True)
class Observation:
    """What can be seen of a machine now. None or empty: the platform does not tell."""

    power: Power
    heartbeat: bool | None = None
    """A program in the guest answered within the last seconds. None: there is no such program, or none can be had."""
    addresses: tuple[str, ...] = ()
    hostname: str = ""
    console: str = ""
    """Text of the serial console so far, its last 64 KiB at least."""
    reason: str = ""
    """Why it is off or paused, as far as the platform knows: guest shutdown, panic, killed, I/O error, ..."""


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
