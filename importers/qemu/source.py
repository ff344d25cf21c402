"""`qemu`: machines that run in QEMU on this host, however they were started, if they have a QMP socket.

A machine's folder has its sockets, `qmp.sock` and, for its guest agent, `agent.sock` (or as `qmp` and `agent` say).
What we know of it is kept there, in `failback.json`: it goes where the machine goes, and whoever acts for it finds it.

Quiesced means: its services were told to stop (`quiesce`, in the guest), its file systems are frozen (by its agent, if
it has one), and it is paused: from then on it acknowledges nothing. A paused machine that we did not pause is none.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from importers.qemu import agent, moment, thaw
from importers.qemu.arguments import AGENT_SOCKET, QMP_SOCKET
from importers.qemu.process import claim
from importers.qemu.qmp import Qmp
from importers.qemu.source_findings import findings
from importers.qemu.source_settings import QemuSettings
from importers.qemu.takeover import Image, Run, Takeover, explained, started
from manifests.machine import Machine
from manifests.manifest import Consistency
from pipeline.catalogue import Point
from pipeline.described import describe, split_file
from pipeline.errors import FailbackError, SourceError, SourceUnavailable, UsageError
from pipeline.exporters.open import open_exporter
from pipeline.finding import Finding
from pipeline.place import Power
from pipeline.source import Reading, SourceAbilities, SourceContext, SourceState, Stopped
from pipeline.sources.fence import Fence
from pipeline.sources.notes import LOCKED, QUIESCED, TOUCHED, note, noted
from pipeline.sources.script import call
from pipeline.sources.settings import parse_settings
from pipeline.transfer.export_request import DiskSource

_COMMANDED = "source-commanded"
"""`quiesce` was run in the guest of that process, or is about to be."""
_FROZEN = "source-frozen"
_LOOK_SECONDS = 3.0
_FREEZE_SECONDS = 30.0
_START_SECONDS = 60.0
_AGENT_SECONDS = 60.0
_QUIT_SECONDS = 20.0
_PRESS_AGAIN_SECONDS = 10.0
_STEP = 0.05
_LOG = "failback-start.log"


@dataclass(frozen=True, slots=True)
class _Subject:
    """One machine in one verb."""

    settings: QemuSettings
    takeover: Takeover
    fence: Fence

    @property
    def machine(self) -> str:
        return self.takeover.machine


class _Turns:
    """`fence.turn(epoch)`, again and again."""

    def __init__(self, fence: Fence, epoch: int) -> None:
        self._fence, self._epoch = fence, epoch
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(self._fence.turn(self._epoch))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()


class QemuSource:
    """A `pipeline.source.Source`."""

    abilities = SourceAbilities(changes=True, quiesce="services")

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    def able(self, machine: str, settings: Mapping[str, Any]) -> SourceAbilities:
        said = self._settings(machine, settings)
        return SourceAbilities(changes=True, quiesce="services" if said.quiesce else "freeze")

    def preflight(self, machine: str, settings: Mapping[str, Any]) -> list[Finding]:
        try:
            subject = self._subject(machine, settings)
            with subject.takeover.qmp() as qmp:
                qmp.execute("query-status")
                run = subject.takeover.seen(qmp)
        except FailbackError as error:
            return [Finding("error", "QEMU", error.message, error.remedy or "see whether the machine runs")]
        try:
            images = self._chosen(subject, run.images)
        except FailbackError as error:
            return [Finding("error", "disks", error.message, error.remedy)]
        return list(findings(subject.takeover, subject.settings, run, images))

    def observe(self, machine: str, settings: Mapping[str, Any]) -> SourceState:
        return self._observe(self._subject(machine, settings))

    # -- reading ---------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(
        self, machine: str, settings: Mapping[str, Any], *, parent: Point | None, final: bool
    ) -> Iterator[Reading]:
        subject = self._subject(machine, settings)
        with moment.alone(subject.takeover):
            state = self._observe(subject)
            if final and not state.quiesced and not state.proved_off:
                raise SourceError(
                    f"{machine} is {state.power}, and neither quiesced nor off: what it acknowledges after its last "
                    "point would be lost",
                    remedy="quiesce it, or stop it, then take the last point",
                )
            if state.power == "unknown":
                raise SourceUnavailable(f"{machine}: {state.detail}", remedy="see who uses its disks")
            read = self._reading_off if state.proved_off else self._reading_on
            with read(subject, parent, state) as found:
                yield found

    @contextmanager
    def _reading_off(self, subject: _Subject, parent: Point | None, state: SourceState) -> Iterator[Reading]:
        run = subject.takeover.noted
        assert run is not None  # without it nothing is proved off
        moment.clear_files(subject.takeover)
        with ExitStack() as stack:
            disks = []
            images = self._chosen(subject, run.images)
            for number, image in enumerate(images):
                exporter = open_exporter(str(Path(run.folder) / image.file), image_format=image.format)
                stack.callback(exporter.close)
                disks.append(self._disk(subject, number, image, exporter, parent))
            machine = self._described(subject, {}, parent) if subject.settings.hardware else None
            yield Reading(tuple(disks), machine, "application" if noted(subject.takeover, QUIESCED) else "crash")

    @contextmanager
    def _reading_on(self, subject: _Subject, parent: Point | None, state: SourceState) -> Iterator[Reading]:
        takeover = subject.takeover
        manifest = parent.manifest if parent is not None else None
        with takeover.qmp() as qmp:
            moment.clear(takeover, qmp)
            images = self._chosen(subject, takeover.look(qmp).images)
            hardware = _hardware(qmp)
        try:
            with self._frozen(subject, state) as consistency, takeover.qmp() as qmp:
                found = moment.take(takeover, qmp, images, manifest)
            with takeover.qmp() as qmp:
                moment.serve(takeover, qmp, found)
            with moment.opened(takeover, found) as exporters:
                disks = [
                    self._disk(subject, number, image, exporter, parent)
                    for number, (image, exporter) in enumerate(zip(images, exporters, strict=True))
                ]
                yield Reading(tuple(disks), self._described(subject, hardware, parent), consistency)
        finally:
            self._clear(subject)

    def exported(self, machine: str, settings: Mapping[str, Any], point: Point) -> None:
        subject = self._subject(machine, settings)
        if self._observe(subject).power not in ("on", "paused"):
            return
        with subject.takeover.qmp() as qmp:
            images = self._chosen(subject, subject.takeover.look(qmp).images)
            moment.forget_maps(qmp, images, point.manifest)

    # -- verbs -----------------------------------------------------------------------------------------------------

    def quiesce(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        takeover, turns = subject.takeover, _Turns(subject.fence, epoch)
        with turns:
            state = self._observe(subject)
            if state.power == "off" or state.quiesced:
                return
            run = self._look(subject)
            note(takeover, TOUCHED, True)
            if subject.settings.quiesce is not None:
                takeover.note(_COMMANDED, run.identity)
        if subject.settings.quiesce is not None and state.power == "on":
            self._in_guest(subject, "quiesce", subject.settings.quiesce, turns)
        with turns:
            if state.power == "on":
                takeover.note(_FROZEN, run.identity)
                if not self._freeze(subject):
                    self._context.control.tell(f"{machine}: no agent froze its file systems; it is paused as it is")
            with takeover.qmp() as qmp:
                qmp.execute("stop")
            takeover.note(QUIESCED, run.identity)

    def stop(self, machine: str, settings: Mapping[str, Any], *, epoch: int, seconds: float = 120.0) -> None:
        subject = self._subject(machine, settings)
        turns = _Turns(subject.fence, epoch)
        with turns:
            state = self._observe(subject)
            if state.power == "off":
                return
            if state.power == "unknown":
                raise SourceUnavailable(f"{machine}: {state.detail}", remedy="see who uses its disks, and end that")
            run = self._look(subject)
            note(subject.takeover, TOUCHED, True)
            moment_over = state.power == "paused" or seconds <= 0
        if not moment_over:
            self._shut_down(subject, run, turns, seconds)
        with turns:
            self._hard(subject, run)
        if holders := subject.takeover.holders(run):
            raise SourceUnavailable(f"{machine}: its process has ended, and yet {holders[0]}", remedy="end that")

    def prove_stopped(self, machine: str, settings: Mapping[str, Any]) -> Stopped:
        subject = self._subject(machine, settings)
        state = self._observe(subject)
        if not state.proved_off:
            raise SourceError(f"{machine} is {state.power}: {state.detail}", remedy="stop it first")
        return Stopped("platform", state.detail)

    def lock(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        with subject.fence.turn(epoch):
            self._refuse_running(subject, "locked")
            note(subject.takeover, TOUCHED, True)
            self._on_host(subject, "lock", epoch)
            note(subject.takeover, LOCKED, True)

    def resume(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        takeover, turns = subject.takeover, _Turns(subject.fence, epoch)
        with turns:
            if not noted(takeover, TOUCHED):
                return
            self._on_host(subject, "unlock", epoch)
            note(takeover, LOCKED, False)
            self._start(subject, epoch)
        self._until_it_answers(subject)
        with turns, takeover.qmp() as qmp:
            run = takeover.look(qmp)
            if not qmp.execute("query-status")["running"]:
                qmp.execute("cont")
        if takeover.get(_FROZEN) == run.identity:
            self._thaw(subject, turns)
        if takeover.get(_COMMANDED) == run.identity and subject.settings.unquiesce is not None:
            self._in_guest(subject, "unquiesce", subject.settings.unquiesce, turns)
        with turns:
            for key in (QUIESCED, _FROZEN, _COMMANDED, TOUCHED):
                takeover.note(key, "")

    def retire(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        subject = self._subject(machine, settings)
        with subject.fence.turn(epoch):
            self._refuse_running(subject, "retired")
            self._on_host(subject, "retire", epoch)

    def close(self) -> None:
        """Connections are short: none is left."""

    # -- what is seen ----------------------------------------------------------------------------------------------

    def _observe(self, subject: _Subject) -> SourceState:
        takeover = subject.takeover
        power, detail, identity = self._power(subject)
        quiesced = power == "paused" and bool(identity) and takeover.get(QUIESCED) == identity
        return SourceState(power, noted(takeover, LOCKED), quiesced, subject.fence.epoch, detail)

    def _power(self, subject: _Subject) -> tuple[Power, str, str]:
        """With what says so, and which process it is."""
        takeover = subject.takeover
        try:
            with takeover.qmp(seconds=_LOOK_SECONDS) as qmp:
                process = qmp.process
                status = qmp.execute("query-status")
        except SourceUnavailable as error:
            run = takeover.noted
            if run is None:
                raise SourceUnavailable(
                    f"{error.message}; nothing is known of how it ran: that is no proof that it is off",
                    remedy="correct `folder`, or have it run once when it is looked at",
                ) from error
            if run.alive:
                raise
            if holders := takeover.holders(run):
                return "unknown", f"process {run.process} has ended, and yet {holders[0]}", ""
            files = ", ".join(run.files)
            return "off", f"{error.message}; process {run.process} has ended; nobody has {files} open", ""
        words = f"process {process} in {takeover.folder}: {status['status']}"
        return ("on" if status["running"] else "paused"), words, f"{process} {started(process)}"

    def _look(self, subject: _Subject) -> Run:
        with subject.takeover.qmp() as qmp:
            return subject.takeover.look(qmp)

    def _refuse_running(self, subject: _Subject, what: str) -> None:
        state = self._observe(subject)
        if not state.proved_off:
            raise SourceError(
                f"{subject.machine} is {state.power}, it cannot be {what}: {state.detail}", remedy="stop it first"
            )

    # -- quiesce and back ------------------------------------------------------------------------------------------

    def _in_guest(self, subject: _Subject, verb: str, arguments: tuple[str, ...], turns: _Turns) -> None:
        """Raises SourceError when it fails, SourceUnavailable when no agent answers."""
        takeover = subject.takeover
        self._await_agent(subject)
        with explained(subject.machine):
            done = agent.run(
                takeover.folder,
                arguments,
                stdin=b"",
                seconds=subject.settings.seconds,
                turn=turns,
                check=self._context.control.check,
                name=takeover.agent_name,
            )
        if done.exit_code:
            said = " ".join((done.error or done.output).decode("utf-8", "replace").split())[-400:]
            raise SourceError(
                f"{subject.machine}: {verb}: {arguments[0]} ended with exit code {done.exit_code} in the guest: {said}",
                remedy="mend what it complains about, then go on",
            )

    def _await_agent(self, subject: _Subject) -> None:
        end = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                agent.ask(subject.takeover.folder, "guest-ping", name=subject.takeover.agent_name)
                return
            except (OSError, agent.AgentError) as error:
                if time.monotonic() > end:
                    raise SourceUnavailable(
                        f"{subject.machine}: its guest agent does not answer: {error}",
                        remedy="see whether qemu-guest-agent runs in the guest; then again",
                    ) from error
            self._context.control.check()
            time.sleep(_STEP)

    def _agent_answers(self, subject: _Subject) -> bool:
        try:
            agent.ask(subject.takeover.folder, "guest-ping", name=subject.takeover.agent_name)
        except (OSError, agent.AgentError):
            return False
        return True

    def _freeze(self, subject: _Subject) -> bool:
        """Whether its file systems are frozen. False: no agent, or none that can."""
        takeover = subject.takeover
        try:
            if str(agent.ask(takeover.folder, "guest-fsfreeze-status", name=takeover.agent_name)) == "frozen":
                return True
            agent.ask(takeover.folder, "guest-fsfreeze-freeze", seconds=_FREEZE_SECONDS, name=takeover.agent_name)
        except (OSError, agent.AgentError):
            return False
        return True

    def _thaw(self, subject: _Subject, turns: _Turns) -> None:
        """A guest whose agent never answered was not frozen by it; one that is frozen answers nothing else."""
        takeover = subject.takeover
        with turns:
            if thaw.thaw(takeover.folder, takeover.agent_name):
                return
            try:
                state = agent.ask(takeover.folder, "guest-fsfreeze-status", name=takeover.agent_name)
            except (OSError, agent.AgentError):
                return
        raise SourceUnavailable(f"{subject.machine}: its file systems are {state}", remedy="again; then look at it")

    @contextmanager
    def _frozen(self, subject: _Subject, state: SourceState) -> Iterator[Consistency]:
        """For the moment; what is paused is as it is."""
        if state.power == "paused":
            yield "application" if state.quiesced else "crash"
            return
        takeover = subject.takeover
        if not self._agent_answers(subject):
            yield "crash"
            return
        with thaw.guarded(takeover.folder, takeover.agent_name):
            yield "filesystem" if self._freeze(subject) else "crash"

    # -- off and on ------------------------------------------------------------------------------------------------

    def _shut_down(self, subject: _Subject, run: Run, turns: _Turns, seconds: float) -> None:
        end = time.monotonic() + seconds
        again = 0.0
        while run.alive and time.monotonic() < end:
            if time.monotonic() >= again:
                again = time.monotonic() + _PRESS_AGAIN_SECONDS
                with turns:
                    try:
                        with subject.takeover.qmp() as qmp:
                            if not qmp.execute("query-status")["running"]:
                                return  # it shut down, and QEMU was told to stay
                            qmp.execute("system_powerdown")
                        agent.tell(
                            subject.takeover.folder,
                            "guest-shutdown",
                            {"mode": "powerdown"},
                            name=subject.takeover.agent_name,
                        )
                    except (OSError, SourceUnavailable):
                        pass  # no agent; or QEMU is about to end
            self._context.control.check()
            time.sleep(_STEP)

    def _hard(self, subject: _Subject, run: Run) -> None:
        """QEMU writes what it holds; if it does not end, it is killed."""
        if not run.alive:
            return
        descriptor = os.pidfd_open(run.process)
        try:
            try:
                with subject.takeover.qmp() as qmp:
                    qmp.execute("quit")
            except SourceUnavailable:
                pass  # it hangs, or is ending
            if _ended(run, _QUIT_SECONDS) or not run.alive:
                return
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)
        if not _ended(run, _QUIT_SECONDS):
            raise SourceUnavailable(
                f"{subject.machine}: process {run.process} was killed and does not end",
                remedy="see what its storage waits for",
            )

    def _start(self, subject: _Subject, epoch: int) -> None:
        """Unless it runs. Returns when a process was started, which may not answer yet."""
        takeover = subject.takeover
        lock = claim(takeover.folder)
        if lock is None:
            return  # another process of ours started it: it holds that as long as it lives
        try:
            state = self._observe(subject)
            if state.power == "unknown":
                raise SourceUnavailable(f"{subject.machine}: {state.detail}", remedy="see who uses its disks")
            run = takeover.noted
            if state.power != "off" or run is None:
                return
            if subject.settings.start is not None:
                self._on_host(subject, "start", epoch)
                return
            with (takeover.folder / _LOG).open("ab") as log:
                subprocess.run(
                    ["setsid", "--fork", *run.arguments],
                    cwd=run.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock],
                    check=True,
                )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SourceError(
                f"{subject.machine} cannot be started as it was: {error}", remedy="give `start` in its settings"
            ) from error
        finally:
            os.close(lock)

    def _until_it_answers(self, subject: _Subject) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                with subject.takeover.qmp(seconds=1.0):
                    return
            except SourceUnavailable as error:
                if time.monotonic() > end:
                    raise SourceUnavailable(
                        f"{subject.machine} was started and does not answer: {error.message}",
                        remedy=f"see {subject.takeover.folder / _LOG}",
                    ) from error
            self._context.control.check()
            time.sleep(_STEP)

    # -- details ---------------------------------------------------------------------------------------------------

    def _settings(self, machine: str, settings: Mapping[str, Any]) -> QemuSettings:
        return parse_settings(QemuSettings, {**self._context.options, **settings}, kind="qemu", of=machine)

    def _subject(self, machine: str, settings: Mapping[str, Any]) -> _Subject:
        said = self._settings(machine, settings)
        if not said.folder and not said.qmp:
            raise UsageError(f"{machine}: nothing says where its QEMU is", remedy="give `folder` in its settings")
        qmp = Path(said.qmp) if said.qmp else Path(said.folder) / QMP_SOCKET
        folder = Path(said.folder) if said.folder else qmp.parent
        for path in (qmp, Path(said.agent) if said.agent else folder / AGENT_SOCKET):
            if path.parent.absolute() != folder.absolute():
                raise UsageError(f"{machine}: {path} is not in {folder}", remedy="its sockets must be in one folder")
        if not folder.is_dir():
            raise UsageError(f"{machine}: there is no folder {folder}", remedy="correct `folder` in its settings")
        takeover = Takeover(machine, folder.absolute(), qmp.name, Path(said.agent).name if said.agent else AGENT_SOCKET)
        fence = Fence(machine, takeover, takeover.folder / "failback.lock", self._context.control)
        return _Subject(said, takeover, fence)

    def _on_host(self, subject: _Subject, name: str, epoch: int) -> None:
        arguments = getattr(subject.settings, name)
        if arguments is None:
            return
        call(
            f"{subject.machine}: {name}",
            arguments,
            seconds=subject.settings.seconds,
            control=self._context.control,
            variables={
                "FAILBACK_MACHINE": subject.machine,
                "FAILBACK_EPOCH": str(epoch),
                **({"FAILBACK_RUN": self._context.run} if self._context.run else {}),
            },
            passed_on=subject.settings.environment,
        )

    def _chosen(self, subject: _Subject, images: tuple[Image, ...]) -> list[Image]:
        wanted = subject.settings.disks
        if not wanted:
            if not images:
                raise SourceError(f"{subject.machine} has no disk that it can write to", remedy="name `disks`")
            return list(images)
        found = {name: image for image in images for name in (image.node, image.device)}
        for name in wanted:
            if name not in found:
                raise UsageError(
                    f"{subject.machine} has no disk {name}",
                    remedy=f"known are {', '.join(image.device or image.node for image in images)}",
                )
        return [found[name] for name in wanted]

    def _disk(self, subject: _Subject, number: int, image: Image, exporter: Any, parent: Point | None) -> DiskSource:
        _values, lines = split_file(dict(subject.settings.hardware), f"the hardware of {subject.machine} in the plan")
        said = lines[number] if number < len(lines) else {}
        disks = parent.manifest.disks if parent is not None else ()
        before = next((disk for disk in disks if disk.number == number), None)
        boot = said.get("boot", before.boot if before else number == 0)
        return DiskSource(
            exporter,
            f"disk {number}",
            image.format,
            bus=str(said.get("bus") or image.bus or (before.bus if before else "")),
            boot=bool(boot),
            serial=str(said.get("serial") or (before.serial if before else "")),
        )

    def _described(self, subject: _Subject, seen: Mapping[str, Any], parent: Point | None) -> Machine:
        where = f"the hardware of {subject.machine} in the plan"
        said, _lines = split_file(dict(subject.settings.hardware), where)
        before = parent.manifest.machine.model_dump() if parent is not None else {}
        return describe(subject.machine, [said, before, seen], where=where)

    def _clear(self, subject: _Subject) -> None:
        """After a reading; a QEMU that has ended meanwhile took all but the files with it."""
        try:
            with subject.takeover.qmp() as qmp:
                moment.clear(subject.takeover, qmp)
        except SourceUnavailable:
            if not noted(subject.takeover, TOUCHED):
                raise
            moment.clear_files(subject.takeover)


def _ended(run: Run, seconds: float) -> bool:
    """Whether it did within that time. One of our own children is reaped."""
    end = time.monotonic() + seconds
    while run.alive:
        if time.monotonic() > end:
            return False
        time.sleep(_STEP)
    return True


def _hardware(qmp: Qmp) -> dict[str, Any]:
    """As QEMU shows it."""
    cards = re.findall(r"type=nic,model=([^,\s]+),macaddr=([0-9a-fA-F:]{17})", qmp.monitor("info network"))
    memory = qmp.execute("query-memory-size-summary")
    flash = any("flash" in str(entry.get("qdev", "")) or "pflash" in entry["device"] for entry in _blocks(qmp))
    return {
        "firmware": "uefi" if flash else "bios",
        "cpus": len(qmp.execute("query-cpus-fast")),
        "memory_bytes": int(memory["base-memory"]) + int(memory.get("plugged-memory", 0)),
        "nics": [{"mac": mac, "model": model} for model, mac in cards],
        "platform": "qemu",
    }


def _blocks(qmp: Qmp) -> list[dict[str, Any]]:
    return [entry for entry in qmp.execute("query-block") if entry.get("inserted")]
