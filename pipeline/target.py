"""The importer protocol: a target platform takes over disks and machines.

An importer is a class that an entry point of the group `failback.importers` names. It is made with one argument, a
`Context`, and does what its platform can do; what the platform cannot do it says in `abilities`, and callers act on
those alone, never on its name. A class that only makes disks (`--to files`) declares `machines=False` and need not
have the verbs from `build` on.

States of a place, and the verbs that lead from one to the next:

    absent   --prepare-->  prepared  --stage-->  staging  --(stage returns)-->  staged
    staged   --build-->    layered   --boot-->   running  --stop-->             layered
    layered  --finish(drop)-->  staged           layered  --finish(keep)-->     kept
    any      --remove-->   absent                (exists) --adopt-->            prepared

A refresh (`stage` of a later point) happens in `staged`, with `stage_while_layered` also in `layered` and `running`.
With `layer="none"` there is no throw-away layer: `build` for a rehearsal is refused, and `build` for production works
on the staged disks themselves, after which they count as `kept`.

Every verb may be called again after a kill at any moment with the same arguments and must then go on, or give the same
answer: look for the marker before anything is created, journal a remote handle (task, lease, order, snapshot) before
waiting for it. `Place`, `Stage` and `Build` are values that callers keep as JSON; `ref` in them belongs to the
importer alone, and an importer believes the platform, not a stale `ref`.

Errors: TargetError and its kin for what the platform refuses, UsageError for what the caller asked wrongly,
VerifyError when a disk does not read back, Cancelled when the caller's `Context` says so. Findings of `preflight` are
values, not errors.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from manifests.machine import Machine
from pipeline.catalogue import Point
from pipeline.mapping import Mapping, Network
from pipeline.progress import Counters, Watch
from pipeline.repository import Repository

Purpose = Literal["rehearsal", "production"]
State = Literal["absent", "prepared", "staging", "staged", "layered", "running", "kept"]
Severity = Literal["error", "warning", "note"]
Power = Literal["on", "off", "paused", "unknown"]
Ref = Dictionary[str, str]
"""An importer's own handles (path, managed object id, volume id, ...), as texts."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a platform can do. Callers plan by these.

    `writer`: who writes the blocks. controller: this process; platform: the platform reads from us; agent: a program
    of ours elsewhere. `patch`: how a staged disk becomes a later point. none: whole again, with a new identity; in
    place; child: a new identity that shares what did not change. `granule`: bytes of the smallest write. `proof`:
    blocks are read back, or only the stream is known to have been taken whole. `network_at`: when networks are
    chosen. `power`: who switches it (guest: only a program in it). `console`: what can be seen of it. `guest`: what a
    program in the guest tells us: heartbeat, command. `forward`: ports of an isolated guest can be reached through us.
    `max_disk`, `size_step` in bytes; `max_attach` disks at a time on a worker. None: no limit known.
    """

    machines: bool = True
    writer: Literal["controller", "platform", "agent"] = "controller"
    patch: Literal["none", "in place", "child"] = "in place"
    granule: int = 512
    proof: Literal["blocks", "stream"] = "blocks"
    layer: Literal["none", "overlay", "snapshot", "clone"] = "none"
    stage_while_layered: bool = False
    create_off: bool = True
    network_at: Literal["build", "boot"] = "build"
    power: Literal["api", "guest", "none"] = "api"
    console: frozenset[Literal["text", "picture"]] = frozenset()
    guest: frozenset[Literal["heartbeat", "command"]] = frozenset()
    forward: bool = False
    instant: bool = False
    max_disk: int | None = None
    size_step: int = 512
    max_attach: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found before anything is done. An `error` stops the caller."""

    severity: Severity
    subject: str
    """What it is about: `disk 0`, `network lab`, `firmware`, ..."""
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What a caller is about to do: `preflight` judges that."""

    purpose: Purpose
    boots: bool
    instant: bool = False


class Journal(Protocol):
    """Durable notes of one place, kept by the caller: a remote handle is noted before it is waited for."""

    def note(self, key: str, value: str) -> None:
        """Durable when it returns. An empty value removes the key."""

    def get(self, key: str) -> str:
        """Empty when nothing was noted."""


class Control(Protocol):
    """How progress and cancellation travel."""

    watch: Watch

    def check(self) -> None:
        """Raises Cancelled when the caller wants the verb to end. Called at least once a second by every verb."""

    def tell(self, text: str) -> None:
        """A line for people: what happens now, and what is waited for."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an importer is made with. `state`: a folder of its own for caches and local places (losing it loses time,
    never data; for a local platform it may hold the places themselves). `memory` in bytes."""

    repository: Repository
    state: Path
    mapping: Mapping
    control: Control
    memory: int = 256 << 20
    parallel: int = 6
    out: Path | None = None
    seeds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where disks of one machine will be. `marker` finds it again on the platform."""

    marker: uuid.UUID
    machine: str
    state: State
    ref: Ref = field(default_factory=dict)
    stage: Stage | None = None
    build: Build | None = None


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
    """Dry run: stored bytes that would be fetched."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Target disks that equal recovery point `machine`@`sequence`.

    `guard` is opaque: equal to what `check` finds as long as nobody else touched the disks. `complete` is False only
    for an instant stage that is still being filled.
    """

    machine: str
    sequence: int
    guard: str
    disks: tuple[DiskRestored, ...] = ()
    complete: bool = True
    ref: Ref = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Build:
    """A machine on a layer of a stage."""

    purpose: Purpose
    name: str
    """Name of the machine on the platform."""
    networks: tuple[Network, ...] = ()
    ref: Ref = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a port of the guest is reached from here."""

    host: str
    port: int


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


class Importer(Protocol):
    """A target platform. Made with a Context; closed at the end. One thread calls it, but `observe`, `picture`,
    `reach` and `command` may be called from several at once."""

    abilities: Abilities

    def preflight(self, point: Point, intent: Intent) -> list[Finding]:
        """Everything that can be known beforehand: login, rights, capacity, names, networks, firmware. Changes nothing.
        Also validates the mapping's options for this platform."""

    def find(self, marker: uuid.UUID) -> Place | None:
        """The place with this marker, in the state the platform shows, with what is staged and built there."""

    def prepare(self, point: Point, marker: uuid.UUID, journal: Journal) -> Place:
        """What must exist before bytes can flow; may do nothing. Finds what an earlier call made."""

    def stage(self, place: Place, point: Point, journal: Journal, *, instant: bool = False) -> Stage:
        """Make the target disks equal the point: resumed when cut short, refreshed by the difference when an earlier
        stage is trusted. `instant` returns when the disks can be used, and goes on filling them behind."""

    def forecast(self, place: Place | None, point: Point) -> list[DiskRestored]:
        """What `stage` would move, writing nothing. `place` None: nothing is there yet."""

    def check(self, stage: Stage) -> str:
        """Empty when the guard is intact, else the reason why the disks must be hashed again."""

    def build(
        self, place: Place, stage: Stage, machine: Machine, networks: Sequence[Network], purpose: Purpose
    ) -> Build:
        """The machine, powered off, on a layer of the stage. Called twice it gives the same machine. Networks without
        a name are isolated."""

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        """Power on; returns when the platform says that it runs. May give the build a new identity."""

    def observe(self, build: Build) -> Observation:
        """Cheap enough to be called once a second."""

    def picture(self, build: Build) -> bytes | None:
        """The console as PNG; None when the platform has none."""

    def reach(self, build: Build, port: int) -> Endpoint | None:
        """Where TCP port `port` of the guest is reached; None when it cannot be."""

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        """Run a program in the guest. Raises Unsupported when nothing in the guest takes commands, TargetError when it
        does not answer in time."""

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        """Power off: gracefully for `seconds`, then hard. Returns when it is proved off."""

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        """`keep` merges the layer into the disks, which are then the machine's; else the layer is gone and the stage
        is as it was."""

    def remove(self, marker: uuid.UUID) -> bool:
        """Take away everything that bears the marker, running or not. False when there was nothing. Never touches what
        was adopted."""

    def adopt(self, reference: str, marker: uuid.UUID, journal: Journal) -> Place:
        """Take over a machine or disks that exist (`reference` in the platform's words), found by marker from then on.
        Raises Unsupported."""

    def close(self) -> None:
        """Let go of connections. Machines that run go on."""


ROLES = ("place", "machine", "disk", "network", "snapshot", "worker")


def marker_of(repository: str, run: str, machine: str, role: str, number: int = 0) -> uuid.UUID:
    """The marker of one thing that a run makes: the same wherever and however often it is asked for.

    `repository` is its id. Names are length-prefixed, so that no two sets of names give one marker.
    """
    if role not in ROLES:
        raise ValueError(f"{role} is no role")
    name = "".join(f"{len(part)}:{part}" for part in (repository, run, machine, role, str(number)))
    return uuid.uuid5(_NAMESPACE, name)


_NAMESPACE = uuid.UUID("6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11")
"""Of our own; drawn once."""
