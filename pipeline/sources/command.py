"""`command`: any platform, by programs of the user's.

Each is a list of arguments; no shell is involved. It gets FAILBACK_MACHINE, FAILBACK_EPOCH (of the ownership that it
acts for; a program that fences at the platform compares it), FAILBACK_RUN where there is one, what every program
needs, and the variables that `environment` names. Exit code 0: done; 75: cannot tell or reach it now, ask again; any
other: refused. **Every one may be called again** after it was killed at any moment, and then goes on or finds that all
is done.

    observe        prints `on`, `off` or `paused`, and if it can see that `locked` or `unlocked`, `quiesced` or
                   `working`. Cheap, and changes nothing
    before_read    before the disks are opened. May print a JSON object that says what to read: `disks` (as of --disk),
                   `formats`, `hardware`, `consistency`, `changes` ({"since": POINT, "extents": [[[offset, length],
                   ...] for each disk]}). Gets FAILBACK_FINAL (1 or 0) and FAILBACK_SINCE, the newest point's number
    after_read     when they are closed, also after an error
    quiesce        stops the services; what they acknowledged is on the disks when it ends
    unquiesce      starts them again on a machine that was not switched off. Without it `start` is called
    stop           switches the machine off: gracefully within FAILBACK_SECONDS, then hard; returns when it is off
    prove_stopped  exit code 0: it is off; what it prints is the proof, and is kept. Asks the platform, believes no note
    lock, unlock   it cannot start by itself, and can again
    start          switches it on if it is off, and has its services started
    retire         after the commit: it may be taken away

What `observe` does not print about lock and services is answered from our own notes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from manifests.machine import Machine, Model
from manifests.manifest import Consistency
from manifests.names import encode_machine
from pipeline.catalogue import Point
from pipeline.described import describe, split_file
from pipeline.errors import FailbackError, SourceError, SourceUnavailable, Unsupported, UsageError
from pipeline.exporters.format import format_of_source
from pipeline.exporters.open import open_exporter
from pipeline.finding import Finding
from pipeline.place import Power
from pipeline.source import Reading, SourceAbilities, SourceContext, SourceState, Stopped
from pipeline.sources.fence import Fence
from pipeline.sources.notes import LOCKED, QUIESCED, TOUCHED, note, noted
from pipeline.sources.script import call
from pipeline.sources.settings import parse_settings
from pipeline.target import Journal
from pipeline.transfer.export_request import ChangedBlocks, DiskSource
from pipeline.units import count
from pipeline.verify.duration import Seconds
from pipeline.verify.process import environment

Command = Annotated[tuple[str, ...], Field(min_length=1)]
_POWERS: dict[str, Power] = {"on": "on", "off": "off", "paused": "paused"}
_PLACES = "in the machine's `source`, or for all machines in the plan's `source: {options: ...}`"
_SEEN = 2000
"""Characters of a proof that are kept."""


class CommandSettings(Model):
    """Of one machine; those that hold for all are given once, in the source's options."""

    disks: tuple[str, ...] = ()
    formats: tuple[str | None, ...] = ()
    hardware: dict[str, Any] = Field(default_factory=dict)
    live: bool = False
    """The disks may be read while somebody writes to them: such a point is torn."""
    consistency: Consistency = "crash"
    """Of readings while the machine works."""
    changes: bool = False
    """`before_read` says what changed."""
    observe: Command | None = None
    before_read: Command | None = None
    after_read: Command | None = None
    quiesce: Command | None = None
    unquiesce: Command | None = None
    stop: Command | None = None
    prove_stopped: Command | None = None
    lock: Command | None = None
    unlock: Command | None = None
    start: Command | None = None
    retire: Command | None = None
    seconds: Annotated[Seconds, Field(gt=0)] = 300.0
    """That any of them may take; `stop` its own besides."""
    environment: tuple[str, ...] = ()
    """Names of variables that they get besides."""

    def given(self) -> dict[str, tuple[str, ...]]:
        """The commands that there are."""
        return {name: value for name in _COMMANDS if (value := getattr(self, name)) is not None}


_COMMANDS = tuple(name for name, field in CommandSettings.model_fields.items() if field.annotation == Command | None)


class _Read(Model):
    """What `before_read` prints."""

    disks: tuple[str, ...] | None = None
    formats: tuple[str | None, ...] | None = None
    hardware: dict[str, Any] | None = None
    consistency: Consistency | None = None
    changes: _Changes | None = None


class _Changes(Model):
    since: Annotated[int, Field(ge=1)]
    extents: tuple[tuple[tuple[int, int], ...], ...]


_Read.model_rebuild()


@dataclass(frozen=True, slots=True)
class _Subject:
    """One machine in one verb."""

    machine: str
    settings: CommandSettings
    journal: Journal
    fence: Fence


class CommandSource:
    """A `pipeline.source.Source`."""

    abilities = SourceAbilities(changes=True, quiesce="services", proof="command")

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    def able(self, machine: str, settings: Mapping[str, Any]) -> SourceAbilities:
        said = self._settings(machine, settings)
        return SourceAbilities(
            reads=bool(said.disks or said.before_read),
            changes=said.changes,
            quiesce="services" if said.quiesce else "none",
            proof="command" if said.prove_stopped else "none",
            locks=said.lock is not None,
        )

    def preflight(self, machine: str, settings: Mapping[str, Any]) -> list[Finding]:
        try:
            subject = self._subject(machine, settings)
        except FailbackError as error:
            return [Finding("error", "settings", error.message, error.remedy)]
        return [*_missing(subject.settings), *self._programs(subject), *self._seen(subject), *_disks(subject.settings)]

    def observe(self, machine: str, settings: Mapping[str, Any]) -> SourceState:
        return self._observe(self._subject(machine, settings))

    @contextmanager
    def reading(
        self, machine: str, settings: Mapping[str, Any], *, parent: Point | None, final: bool
    ) -> Iterator[Reading]:
        subject = self._subject(machine, settings)
        if not self.able(machine, settings).reads:
            raise Unsupported(
                f"{machine}: nothing says which disks it has", remedy="give `disks` or `before_read` in the plan"
            )
        state = self._observe(subject)
        if final and not state.quiesced and not self._is_off(subject, state):
            raise SourceError(
                f"{machine} is neither quiesced nor off: what it acknowledges after its last point would be lost",
                remedy="quiesce it, or stop it, then take the last point",
            )
        variables = {
            "FAILBACK_FINAL": str(int(final)),
            "FAILBACK_SINCE": str(parent.manifest.sequence) if parent is not None else "",
        }
        with ExitStack() as stack:
            if subject.settings.after_read is not None:
                # Cancelled or not: what before_read made is taken away.
                stack.callback(self._call, subject, "after_read", variables, stoppable=False)
            said = _parsed(subject, self._call(subject, "before_read", variables))
            yield self._opened(subject, said, state, parent, stack)

    def exported(self, machine: str, settings: Mapping[str, Any], point: Point) -> None:
        """Whoever knows what changed counts by the number of the point (FAILBACK_SINCE)."""

    def quiesce(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        self._needed(subject, "quiesce")
        with subject.fence.turn(epoch):
            if self._observe(subject).power == "off":
                return
            note(subject.journal, TOUCHED, True)
            self._call(subject, "quiesce", epoch=epoch)
            note(subject.journal, QUIESCED, True)

    def stop(self, machine: str, settings: Mapping[str, Any], *, epoch: int, seconds: float = 120.0) -> None:
        subject = self._subject(machine, settings)
        self._needed(subject, "stop")
        with subject.fence.turn(epoch):
            state = self._observe(subject)
            if state.power == "off":
                return
            note(subject.journal, TOUCHED, True)
            gracefully = 0.0 if state.quiesced else seconds
            self._call(subject, "stop", {"FAILBACK_SECONDS": f"{gracefully:g}"}, epoch=epoch, seconds=gracefully)
            if (state := self._observe(subject)).power in ("on", "paused"):
                raise SourceError(
                    f"{machine} is {state.power} after `stop` ended", remedy="`stop` must return when it is off"
                )

    def prove_stopped(self, machine: str, settings: Mapping[str, Any]) -> Stopped:
        subject = self._subject(machine, settings)
        self._needed(subject, "prove_stopped")
        if (state := self._observe(subject)).power in ("on", "paused"):
            raise SourceError(f"{machine} is {state.power}", remedy="stop it first")
        return self._prove(subject)

    def lock(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        self._needed(subject, "lock")
        with subject.fence.turn(epoch):
            self._refuse_running(subject, "locked")
            note(subject.journal, TOUCHED, True)
            self._call(subject, "lock", epoch=epoch)
            note(subject.journal, LOCKED, True)

    def resume(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        journal = subject.journal
        with subject.fence.turn(epoch):
            if not noted(journal, TOUCHED):
                return
            if subject.settings.unlock is not None:
                self._call(subject, "unlock", epoch=epoch)
            note(journal, LOCKED, False)
            again = "unquiesce" if subject.settings.unquiesce is not None else "start"
            if self._observe(subject).power not in ("on", "paused"):
                again = "start"
            self._needed(subject, again)
            self._call(subject, again, epoch=epoch)
            if (state := self._observe(subject)).power in ("off", "paused"):
                raise SourceError(f"{machine} is {state.power} after `{again}` ended", remedy="look at that command")
            note(journal, QUIESCED, False)
            note(journal, TOUCHED, False)

    def retire(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        with subject.fence.turn(epoch):
            self._refuse_running(subject, "retired")
            self._call(subject, "retire", epoch=epoch)

    def close(self) -> None:
        """There are no connections."""

    # -- details ---------------------------------------------------------------------------------------------------

    def _settings(self, machine: str, settings: Mapping[str, Any]) -> CommandSettings:
        return parse_settings(CommandSettings, {**self._context.options, **settings}, kind="command", of=machine)

    def _subject(self, machine: str, settings: Mapping[str, Any]) -> _Subject:
        said = self._settings(machine, settings)
        journal = self._context.journal(machine)
        lock = self._context.state / encode_machine(machine) / "lock"
        return _Subject(machine, said, journal, Fence(machine, journal, lock, self._context.control))

    def _call(
        self,
        subject: _Subject,
        name: str,
        more: Mapping[str, str] | None = None,
        *,
        epoch: int | None = None,
        seconds: float = 0.0,
        stoppable: bool = True,
    ) -> str:
        """What it printed; empty where there is no such command."""
        arguments: Sequence[str] | None = getattr(subject.settings, name)
        if arguments is None:
            return ""
        variables = {
            "FAILBACK_MACHINE": subject.machine,
            "FAILBACK_EPOCH": str(subject.fence.epoch if epoch is None else epoch),
            **({"FAILBACK_RUN": self._context.run} if self._context.run else {}),
            **(more or {}),
        }
        return call(
            f"{subject.machine}: {name}",
            arguments,
            seconds=subject.settings.seconds + seconds,
            control=self._context.control if stoppable else None,
            variables=variables,
            passed_on=subject.settings.environment,
        )

    def _observe(self, subject: _Subject) -> SourceState:
        quiesced, locked = noted(subject.journal, QUIESCED), noted(subject.journal, LOCKED)
        if subject.settings.observe is None:
            return SourceState("unknown", locked, quiesced, subject.fence.epoch, "no command observes it")
        said = self._call(subject, "observe").split()
        if not said or said[0] not in _POWERS:
            raise SourceUnavailable(
                f"{subject.machine}: observe printed {' '.join(said)[:100]!r}, not how it is",
                remedy=f"it must begin with one of {', '.join(_POWERS)}",
            )
        words = set(said[1:])
        locked = "locked" in words or (locked and "unlocked" not in words)
        quiesced = "quiesced" in words or (quiesced and "working" not in words)
        on = _POWERS[said[0]] != "off"
        return SourceState(_POWERS[said[0]], locked, quiesced and on, subject.fence.epoch, " ".join(said)[:_SEEN])

    def _prove(self, subject: _Subject) -> Stopped:
        seen = self._call(subject, "prove_stopped").strip()
        if not seen:
            raise SourceError(
                f"{subject.machine}: prove_stopped ended with 0 and printed nothing: that is no proof",
                remedy="have it print what the platform answered",
            )
        return Stopped("command", seen[-_SEEN:])

    def _is_off(self, subject: _Subject, state: SourceState) -> bool:
        if state.power == "unknown" and subject.settings.prove_stopped is not None:
            self._prove(subject)
            return True
        return state.proved_off

    def _refuse_running(self, subject: _Subject, what: str) -> None:
        """Where nothing can tell, a person has: the caller knows."""
        state = self._observe(subject)
        if not self._is_off(subject, state) and state.power != "unknown":
            raise SourceError(f"{subject.machine} is {state.power}: it cannot be {what}", remedy="stop it first")

    def _needed(self, subject: _Subject, name: str) -> None:
        if getattr(subject.settings, name) is None:
            raise Unsupported(
                f"{subject.machine}: no command `{name}` is given", remedy=f"give `{name}` in the machine's settings"
            )

    def _opened(
        self, subject: _Subject, said: _Read, state: SourceState, parent: Point | None, stack: ExitStack
    ) -> Reading:
        settings = subject.settings
        specs = said.disks or settings.disks
        formats = said.formats or settings.formats or (None,) * len(specs)
        if not specs or len(formats) != len(specs):
            raise UsageError(
                f"{subject.machine}: {count(len(specs), 'disk')} and {count(len(formats), 'format')} are named",
                remedy="name every disk, and a format for each or none",
            )
        machine, lines = _hardware(subject, said.hardware or settings.hardware, parent, len(specs))
        if said.changes is not None and len(said.changes.extents) != len(specs):
            raise UsageError(f"{subject.machine}: before_read does not say what changed on each disk")
        live = False
        disks = []
        for number, (spec, image_format, line) in enumerate(zip(specs, formats, lines, strict=True)):
            exporter = open_exporter(spec, image_format=image_format, allow_live=settings.live)
            stack.callback(exporter.close)
            live = live or exporter.live
            changes = None
            if said.changes is not None:
                changes = _changed(subject, said.changes, number, exporter.size)
            disks.append(
                DiskSource(exporter, f"disk{number}", format_of_source(spec, image_format), changes=changes, **line)
            )
        consistency: Consistency = said.consistency or settings.consistency
        if state.quiesced:
            consistency = "application"
        elif live:
            consistency = "torn"
        return Reading(tuple(disks), machine, consistency)

    def _programs(self, subject: _Subject) -> Iterator[Finding]:
        from shutil import which

        for name, arguments in subject.settings.given().items():
            if which(arguments[0]) is None:
                yield Finding(
                    "error", name, f"{arguments[0]} is not installed, or not executable", "correct the command"
                )
        try:
            environment(subject.settings.environment)
        except UsageError as error:
            yield Finding("error", "environment", error.message, error.remedy)

    def _seen(self, subject: _Subject) -> Iterator[Finding]:
        try:
            state = self._observe(subject)
        except FailbackError as error:
            yield Finding("error", "observe", error.message, error.remedy)
            return
        if state.power in ("off", "paused"):
            yield Finding("warning", "power", f"it is {state.power} now", "switch it on, or go on with what it has")


def _missing(settings: CommandSettings) -> Iterator[Finding]:
    """What cannot be done, and what that means."""
    for name, severity, meaning in (
        ("stop", "error", "it cannot be switched off"),
        ("start", "error", "there is no way back: it could not be switched on again"),
        ("prove_stopped", "warning", "the run stops there until a person says that it is off"),
        ("quiesce", "warning", "it is switched off before its last point is taken: downtime grows by that"),
        ("lock", "warning", "nothing keeps it from starting by itself at the takeover site"),
        ("observe", "warning", "nobody sees whether it runs"),
    ):
        if getattr(settings, name) is None:
            kind: Any = severity
            yield Finding(kind, name, f"no command is given: {meaning}", f"give `{name}`, {_PLACES}")
    if settings.lock is not None and settings.unlock is None:
        yield Finding("error", "unlock", "it could be locked, and not unlocked again", f"give `unlock`, {_PLACES}")


def _disks(settings: CommandSettings) -> Iterator[Finding]:
    if not settings.disks and settings.before_read is None:
        yield Finding(
            "warning",
            "disks",
            "no disks are named: its points must come from elsewhere, the last one too",
            "name `disks` in the machine's `source`; or schedule exports there, and add a condition of kind point-age",
        )
    if settings.before_read is not None:
        return  # it may make what is named
    formats = settings.formats or (None,) * len(settings.disks)
    if len(formats) != len(settings.disks):
        yield Finding("error", "formats", "there must be one for each disk", "correct `formats`")
        return
    for number, spec in enumerate(settings.disks):
        try:
            open_exporter(spec, image_format=formats[number], allow_live=True).close()
        except FailbackError as error:
            yield Finding("error", f"disk {number}", error.message, error.remedy or "correct `disks`")


def _parsed(subject: _Subject, printed: str) -> _Read:
    """Lines before the JSON object are the program's own."""
    start = printed.find("{")
    if start < 0:
        return _Read()
    try:
        document = json.loads(printed[start:])
    except ValueError as error:
        raise UsageError(
            f"{subject.machine}: what before_read printed is no JSON: {error}", remedy="have it print one object, last"
        ) from None
    return parse_settings(_Read, document, kind="command, as before_read printed them,", of=subject.machine)


def _changed(subject: _Subject, changes: _Changes, number: int, size: int) -> ChangedBlocks:
    extents = tuple(sorted(changes.extents[number]))
    if any(offset < 0 or length <= 0 or offset + length > size for offset, length in extents):
        raise UsageError(
            f"{subject.machine}: before_read names changes outside disk {number}, which has {size} bytes",
            remedy="each is [offset, length] in bytes",
        )
    return ChangedBlocks(changes.since, extents)


def _hardware(
    subject: _Subject, values: Mapping[str, Any], parent: Point | None, disks: int
) -> tuple[Machine | None, list[dict[str, Any]]]:
    """The machine, if anything is said of it (the rest is as the parent says), and what is said of each disk."""
    if not values:
        return None, [{"boot": number == 0} for number in range(disks)]
    where = f"the hardware of {subject.machine} in the plan"
    properties, lines = split_file(dict(values), where)
    if len(lines) > disks:
        raise UsageError(f"{where} describes {len(lines)} disks, there are {disks}", remedy="correct it")
    lines = [*lines, *({} for _ in range(disks - len(lines)))]
    if not any(line.get("boot") for line in lines):
        lines[0] = {**lines[0], "boot": True}
    if not properties:
        return None, lines
    before = [parent.manifest.machine.model_dump()] if parent is not None else []
    return describe(subject.machine, [properties, *before], where=where), lines
