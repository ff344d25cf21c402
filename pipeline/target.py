"""The importer protocol: a target platform takes over disks and machines.

An importer is a class that an entry point of the group `failback.importers` names. It is made with one argument, a
`Context`, and does what its platform can do; what the platform cannot do it says in `abilities`, and callers act on
those alone, never on its name. A class that only makes disks (`--to files`) declares `machines=False`; verbs from
`build` on are then never called (`DisksOnly` has them all, refusing).

A *place* holds the disks of one machine, and the machine once it is built. Its states, and the verbs that lead from
one to the next:

    absent   --prepare-->  prepared  --stage-->  staging  --(stage returns)-->  staged
    staged   --build-->    layered   --boot-->   running  --stop-->             layered
    layered  --finish(drop)-->  staged           layered  --finish(keep)-->     kept
    kept     --boot-->     running   --stop-->   kept
    any      --remove-->   absent                (exists) --adopt-->            prepared

A refresh (`stage` of a later point) happens in `staged`, with `stage_while_layered` also in `layered` and `running`.
With `layer="none"` there is no throw-away layer: `build` for a rehearsal is refused, and `build` for production works
on the staged disks themselves, after which they are `kept`.
A verb that is called in a state it does not lead from raises TargetError and changes nothing.

**Again after a kill.** Every verb may be called again, with the same arguments, after a kill at any moment, and must
then go on or give the same answer: look for the marker before anything is created, note a remote handle (task, lease,
order, snapshot) in `context.journal(marker)` before waiting for it. `Place`, `Stage` and `Build` are values that
callers may keep; `ref` in them belongs to the importer alone, and an importer believes the platform, not a stale
`ref`. Callers begin with `find` and let its answer decide what comes next.

**Markers.** The place's marker is given; those of things in it (machine, disks, snapshots) are `part_of(marker, ...)`.
They are kept where the platform can search for them.

**Guard.** What makes a stage trusted without reading it: the disks' identity, no snapshot, no power-on, no foreign
change since our last call. `stage` reads whole disks again when the guard is broken.

**Writers** are of three kinds: block (`pipeline.writers`: write, discard, flush, read back), stream (a whole disk,
forward only) and block put (aligned blocks, sealed once). Which one is the importer's business; `writer`, `patch` and
`proof` say what it means for the caller. Targets may be larger than the disk (`size_step`): digests cover the
manifest's length, the tail is zero.

**Progress and cancellation.** `context.control.watch` is given counters that grow, `tell` lines for people. `check`
raises Cancelled; call it at least once a second, also while waiting. A verb that ends with Cancelled, or with any
other error, leaves what a kill would leave. Ctrl-C raises KeyboardInterrupt in the thread that calls the verb: the
same holds.

Errors: TargetError and its kin for what the platform refuses or does not answer (Unsupported for what it cannot do at
all, BootError for a machine that did not start), UsageError for what the caller asked wrongly, VerifyError when a disk
does not read back, Cancelled. Findings of `preflight` are values, not errors.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pipeline.catalogue import Point
from pipeline.finding import Finding, Severity
from pipeline.place import (
    Build,
    CommandResult,
    DiskRestored,
    Endpoint,
    Observation,
    Place,
    Power,
    Purpose,
    Ref,
    Stage,
    State,
)
from pipeline.progress import Watch
from pipeline.repository import Repository
from pipeline.wanted import Network, Wanted

__all__ = [
    "Abilities",
    "Build",
    "CommandResult",
    "Context",
    "Control",
    "DiskRestored",
    "Endpoint",
    "Finding",
    "Importer",
    "Intent",
    "Journal",
    "Network",
    "Observation",
    "Place",
    "Power",
    "Purpose",
    "Ref",
    "Severity",
    "Stage",
    "State",
    "Triable",
    "Tried",
    "Wanted",
    "Writing",
    "marker_of",
    "part_of",
]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a platform can do. Callers plan by these."""

    machines: bool = True
    """It has machines, not only disks."""
    writer: Literal["controller", "platform", "agent"] = "controller"
    """Who writes the blocks: this process; the platform, reading from us; a program of ours elsewhere."""
    patch: Literal["none", "in place", "child"] = "in place"
    """How a staged disk becomes a later point. none: whole again, with a new identity; child: a new identity that
    shares what did not change."""
    granule: int = 512
    """Bytes of the smallest write."""
    proof: Literal["blocks", "stream"] = "blocks"
    """Blocks are read back, or only the stream is known to have been taken whole."""
    layer: Literal["none", "overlay", "snapshot", "clone"] = "none"
    """What a machine runs on, so that the stage stays as it is."""
    stage_while_layered: bool = False
    """A stage can be refreshed while a machine is built on it."""
    create_off: bool = True
    """A machine can exist without running. False: `build` only prepares, and `boot` makes it."""
    network_at: Literal["build", "boot"] = "build"
    """When networks are chosen for good."""
    power: Literal["api", "guest", "none"] = "api"
    """Who switches it: the platform; only a program in the guest; nobody but a person."""
    console: frozenset[Literal["text", "picture"]] = frozenset()
    """What can be seen of it."""
    guest: frozenset[Literal["heartbeat", "command"]] = frozenset()
    """What a program in the guest may do for us, if there is one."""
    forward: bool = False
    """Ports of an isolated guest can be reached through us."""
    instant: bool = False
    """A machine can run from the repository while its disks are still being filled."""
    adopts: bool = False
    """It can take over machines or disks that exist."""
    max_disk: int | None = None
    """Bytes; None: no limit known."""
    size_step: int = 512
    """Sizes of disks are multiples of this many bytes."""
    max_attach: int | None = None
    """Disks that a worker holds at a time; None: no limit known."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a caller is about to do: `preflight` judges that."""

    purpose: Purpose
    boots: bool
    instant: bool = False


class Journal(Protocol):
    """Durable notes about one place, kept by the caller."""

    def note(self, key: str, value: str) -> None:
        """Durable when it returns. An empty value removes the key."""

    def get(self, key: str) -> str:
        """Empty when nothing was noted."""


class Control(Protocol):
    """How progress and cancellation travel."""

    @property
    def watch(self) -> Watch:
        """Takes counters; see pipeline.progress."""

    def check(self) -> None:
        """Raises Cancelled when the caller wants the verb to end."""

    def tell(self, text: str) -> None:
        """A line for people: what happens now, and what is waited for."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an importer is made with."""

    repository: Repository
    state: Path
    """A folder of this importer's own, for caches and local places. For a remote platform losing it loses time, never
    data; a local one may keep the places themselves here. May not exist yet."""
    control: Control
    journal: Callable[[uuid.UUID], Journal]
    """The notes about the place with this marker."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the mapping says for this platform and all machines: addresses, credentials' names, ..."""
    memory: int = 256 << 20
    """Bytes of block data in memory at most."""
    parallel: int = 6
    """Requests to the repository at a time."""
    out: Path | None = None
    """Where disks go, for platforms of folders. None: below `state`."""
    address: str = ""
    """Of the repository as this host reaches it, for programs of ours elsewhere. Empty: they cannot be told."""
    pairings: Path | None = None
    """Folder where this host keeps its pairings with agents. None: below `state`."""
    again: tuple[str, ...] = ()
    """Command line with which failback is called once more on this repository, for a program that is to outlive us.
    Empty: it cannot be."""
    seeds: tuple[str, ...] = ()
    """Surviving disks, in the platform's words; read only. What they still hold is not fetched."""


class Importer(Protocol):
    """A target platform. One thread calls it, but `observe`, `picture`, `reach`, `accepted` and
    `command` may be called from several at once."""

    abilities: Abilities

    def __init__(self, context: Context) -> None:
        """Cheap: nothing is connected before the first verb, and no error is raised for what is not used."""

    def examine(self) -> list[Finding]:
        """What is missing on this host or platform, whatever the machine: programs, rights, reachability, clocks
        (`failback doctor --to`). Changes nothing."""

    def preflight(self, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
        """Everything that can be known beforehand: login, rights, capacity, names, networks, firmware, and the
        options of this platform. Changes nothing. `wanted.findings` are the caller's business."""

    def find(self, marker: uuid.UUID) -> Place | None:
        """The place with this marker, in the state the platform shows, with what is staged and built there. None:
        absent.

        What is left of a machine or layer, half made or half gone, is shown as `layered` (`booted` False when it is
        being dropped): `build` completes it, or makes it afresh where a drop was cut short; `finish` takes it away.
        """

    def prepare(self, point: Point, wanted: Wanted, marker: uuid.UUID) -> Place:
        """What must exist before bytes can flow; may do nothing. Finds what an earlier call made."""

    def stage(self, place: Place, point: Point, wanted: Wanted, *, instant: bool = False) -> Stage:
        """Make the target disks equal the point: resumed when cut short, refreshed by the difference when an earlier
        stage is trusted, nothing when they hold it. `instant` returns when the disks can be used, and goes on filling
        them behind, also after we end."""

    def forecast(self, place: Place | None, point: Point, wanted: Wanted) -> list[DiskRestored]:
        """What `stage` would move, writing nothing. `place` None: nothing is there yet."""

    def check(self, stage: Stage) -> str:
        """Empty when the guard is intact, else the reason why the disks must be hashed again."""

    def build(self, place: Place, stage: Stage, wanted: Wanted, purpose: Purpose) -> Build:
        """The machine, powered off, on a layer of the stage. Called twice it gives the same machine; called with
        another purpose or name while one is there it raises TargetError. Networks without a name are isolated."""

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        """Power on; returns when the platform says that it runs (not: that the guest is up). One that runs already is
        left alone. May give the build a new identity."""

    def observe(self, build: Build) -> Observation:
        """What can be seen now. Cheap enough to be called once a second; a machine that is gone is off."""

    def picture(self, build: Build) -> bytes | None:
        """The console as PNG; None when there is none to be had now."""

    def reach(self, build: Build, port: int) -> Endpoint | None:
        """Where TCP port `port` of the guest is reached; None when it cannot be. Makes the way when there is none."""

    def accepted(self, build: Build, port: int) -> bool | None:
        """Of the connections now open to that port through a relayed `reach`: has the guest itself accepted one?
        None: it cannot be told."""

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        """Run a program in the guest. Raises Unsupported when nothing in the guest takes commands, TargetError when it
        does not answer in time."""

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        """Power off: gracefully for `seconds` (0: not at all), then hard. Returns when it is proved off. One that is
        off already is left alone."""

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        """`keep` merges the layer into the disks, which are the machine's from then on; else machine and layer are
        gone and the stage is as it was. Not while it runs. A `keep` that was cut short can only be completed."""

    def remove(self, marker: uuid.UUID) -> bool:
        """Take away everything that bears the marker, whole or half made, running or not. False when there was
        nothing. What was adopted is let go, never deleted."""

    def adopt(self, reference: str, marker: uuid.UUID) -> Place:
        """Take over a machine or disks that exist (`reference` in the platform's words), found by marker from then on.
        Raises Unsupported."""

    def close(self) -> None:
        """Let go of connections. Machines that run go on."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One thing that was tried out on a platform."""

    point: str
    outcome: Literal["as expected", "different", "failed", "skipped"]
    detail: str
    seconds: float


@runtime_checkable
class Triable(Protocol):
    """What an importer may have beside its verbs: it tries on the platform itself what was never run on a real one
    (`failback doctor --to TARGET --deep FILE`)."""

    def trial(self, run: uuid.UUID) -> Iterator[Tried]:
        """Makes things of its own there, marked by `run`, and takes them away again; those that an earlier call with
        the same `run` left go first. Raises FailbackError where there is nothing to try it on."""


@runtime_checkable
class Writing(Protocol):
    """What an importer may have beside its verbs: it says how much would be lost with a layer."""

    def written(self, build: Build) -> int | None:
        """Bytes that the machine's layer takes: what the guest wrote since it was built, to the platform's granule. A
        look, while it runs; None when it cannot be told."""


@runtime_checkable
class Borrowing(Protocol):
    """What an importer may have beside its verbs: while it stages a place it borrows what is none of its own, such as
    surviving disks that are plugged into a worker to be read. A command that dies leaves them so."""

    def borrowed(self, marker: uuid.UUID) -> list[str]:
        """In words, what is borrowed for the place now. To be asked while no command works on it."""

    def give_back(self, marker: uuid.UUID) -> None:
        """Nothing is borrowed for the place any more; it stays as it is. Twice is the same."""


ROLES = ("place", "machine", "disk", "network", "snapshot", "worker")


def marker_of(repository: str, run: str, machine: str, role: str = "place", number: int = 0) -> uuid.UUID:
    """The marker of one thing that a run makes: the same wherever and however often it is asked for.

    `repository` is its id. Names are length-prefixed, so that no two sets of names give one marker.
    """
    return uuid.uuid5(_NAMESPACE, _name(repository, run, machine, _role(role), str(number)))


def part_of(marker: uuid.UUID, role: str, number: int = 0) -> uuid.UUID:
    """The marker of a thing inside the place with `marker`."""
    return uuid.uuid5(marker, _name(_role(role), str(number)))


def _role(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"{role} is no role")
    return role


def _name(*parts: str) -> str:
    return "".join(f"{len(part)}:{part}" for part in parts)


_NAMESPACE = uuid.UUID("6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11")
"""Of our own; drawn once."""
