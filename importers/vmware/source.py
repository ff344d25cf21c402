"""`vmware`: machines that run at a vCenter or an ESXi host now. Their power side alone; points come from elsewhere.

Notes are kept on the machine, as advanced settings below `failback.`: the epoch, that it was stopped by us, and that it
is locked, with what was switched off for that. vSphere has no lock that keeps people from starting a machine: who holds
the right to, can. What starts it without a person (importers.vmware.unattended) is switched off.

A machine's state counts only while its host is connected: what vCenter shows of one that is not is from before.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from importers.vmware import power, unattended
from importers.vmware.connection import Connection
from importers.vmware.machines import find_machine, machines_called
from importers.vmware.marks import Marks
from importers.vmware.options import parse_options
from importers.vmware.properties import values_of
from importers.vmware.vm import PREFIX
from manifests.machine import Model
from manifests.names import encode_machine
from pipeline.catalogue import Point
from pipeline.errors import (
    BootError,
    FailbackError,
    SourceBusy,
    SourceError,
    SourceUnavailable,
    TargetBusy,
    TargetError,
    TargetUnavailable,
    Unsupported,
    UsageError,
)
from pipeline.finding import Finding
from pipeline.place import Power
from pipeline.source import Reading, SourceAbilities, SourceContext, SourceState, Stopped
from pipeline.sources.fence import EPOCH, Fence
from pipeline.sources.notes import LOCKED, TOUCHED, note, noted
from pipeline.sources.settings import parse_settings

_POWER: dict[str, Power] = {"poweredOn": "on", "poweredOff": "off", "suspended": "paused"}
_AUTOSTART, _PRIORITY = "source-autostart", "source-priority"
"""Marks: how it was before it was locked; `-` for a restart priority that was its cluster's."""
_CLUSTERS = "-"
_PATHS = ("name", "runtime.powerState", "runtime.connectionState", "config.extraConfig", "guest.toolsRunningStatus")
_RIGHTS = (
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Config.AdvancedConfig",
)


class VmwareSettings(Model):
    """Of one machine. Empty: the machine of the inventory that has its name."""

    name: str = ""
    """In the inventory, where it is another one."""
    instance: uuid.UUID | None = None
    """Its instance UUID, where several have the name."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """One machine in one verb."""

    machine: str
    object: Any
    marks: Marks
    fence: Fence


class VmwareSource:
    """A `pipeline.source.Source`. The connection is described as for the importer (`importers.vmware.options`)."""

    abilities = SourceAbilities(reads=False, quiesce="none", proof="platform", locks=True)

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._options = parse_options(context.options)
        self._lock = threading.Lock()
        self._opened: Connection | None = None
        self._known: dict[str, str] = {}
        """Machine -> id of its managed object, for those who look at it every second."""

    def able(self, machine: str, settings: Mapping[str, Any]) -> SourceAbilities:
        self._settings(machine, settings)
        return self.abilities

    def preflight(self, machine: str, settings: Mapping[str, Any]) -> list[Finding]:
        try:
            with _explained(machine):
                return list(self._findings(self._subject(machine, settings)))
        except FailbackError as error:
            return [Finding("error", "machine", error.message, error.remedy or "correct its settings")]

    def observe(self, machine: str, settings: Mapping[str, Any]) -> SourceState:
        with _explained(machine):
            return self._observe(self._subject(machine, settings))

    def reading(
        self, machine: str, settings: Mapping[str, Any], *, parent: Point | None, final: bool
    ) -> AbstractContextManager[Reading]:
        raise Unsupported(
            f"{machine}: disks are not read from vSphere", remedy="export it by an agent, or by `failback export` there"
        )

    def exported(self, machine: str, settings: Mapping[str, Any], point: Point) -> None:
        """Nothing is counted here."""

    def quiesce(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        raise Unsupported(f"{machine}: nothing in a machine of vSphere is quiesced", remedy="stop it instead")

    def stop(self, machine: str, settings: Mapping[str, Any], *, epoch: int, seconds: float = 120.0) -> None:
        with _explained(machine):
            subject = self._subject(machine, settings)
            connection = self._connection
            with subject.fence.turn(epoch):
                state = self._known_state(subject)
                if state.proved_off:
                    return
                note(subject.marks, TOUCHED, True)
                waits = state.power == "on" and seconds > 0 and power.ask_to_shut_down(connection, subject.object)
            end = time.monotonic() + seconds
            while waits and time.monotonic() < end and power.power_of(connection, subject.object) != "poweredOff":
                self._context.control.check()
                time.sleep(min(power.STEP_SECONDS, max(end - time.monotonic(), 0)))
            with subject.fence.turn(epoch):
                power.cut_power(connection, subject.object, machine, self._context.control)

    def prove_stopped(self, machine: str, settings: Mapping[str, Any]) -> Stopped:
        state = self.observe(machine, settings)
        if not state.proved_off:
            raise SourceError(f"{machine} is {state.power}: {state.detail}", remedy="stop it first")
        return Stopped("platform", state.detail)

    def lock(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        with _explained(machine):
            subject = self._subject(machine, settings)
            with subject.fence.turn(epoch):
                self._refuse_running(subject, "locked")
                note(subject.marks, TOUCHED, True)
                self._lock_autostart(subject)
                self._lock_priority(subject)
                note(subject.marks, LOCKED, True)

    def resume(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        with _explained(machine):
            subject = self._subject(machine, settings)
            with subject.fence.turn(epoch):
                if not noted(subject.marks, TOUCHED):
                    return
                self._unlock(subject)
                note(subject.marks, LOCKED, False)
                power.switch_on(self._connection, subject.object, machine, self._context.control)
                note(subject.marks, TOUCHED, False)

    def retire(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        with _explained(machine):
            subject = self._subject(machine, settings)
            with subject.fence.turn(epoch):
                self._refuse_running(subject, "retired")

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    # -- lock and unlock -------------------------------------------------------------------------------------------

    def _lock_autostart(self, subject: _Subject) -> None:
        action = unattended.autostart_of(self._connection, subject.object)
        if action in ("", unattended.NONE):
            return
        subject.marks.note(_AUTOSTART, action)
        unattended.set_autostart(self._connection, subject.object, unattended.NONE)

    def _lock_priority(self, subject: _Subject) -> None:
        """Where that is not allowed it is told: a machine that is off is not started by high availability."""
        try:
            priority = unattended.priority_of(self._connection, subject.object)
            if priority is None or priority == unattended.DISABLED:
                return
            subject.marks.note(_PRIORITY, priority or _CLUSTERS)
            unattended.set_priority(self._connection, subject.object, unattended.DISABLED, self._context.control)
        except TargetUnavailable:
            raise
        except TargetError as error:
            self._context.control.tell(f"{subject.machine} keeps its restart priority: {error.message}")

    def _unlock(self, subject: _Subject) -> None:
        if action := subject.marks.get(_AUTOSTART):
            unattended.set_autostart(self._connection, subject.object, action)
            subject.marks.note(_AUTOSTART, "")
        if not (priority := subject.marks.get(_PRIORITY)):
            return
        wanted = "" if priority == _CLUSTERS else priority
        try:
            unattended.set_priority(self._connection, subject.object, wanted, self._context.control)
        except TargetUnavailable:
            raise
        except TargetError as error:
            self._context.control.tell(f"the restart priority of {subject.machine} stays as it is: {error.message}")
        subject.marks.note(_PRIORITY, "")

    # -- what is seen ----------------------------------------------------------------------------------------------

    def _observe(self, subject: _Subject) -> SourceState:
        values = values_of(self._connection, subject.object, *_PATHS)
        marks = {str(option.key): str(option.value) for option in values.get("config.extraConfig") or ()}
        shown, connected = str(values.get("runtime.powerState")), str(values.get("runtime.connectionState"))
        found: Power = _POWER.get(shown, "unknown")
        detail = f"{self._connection.name}: {values.get('name')} ({subject.object._moId}): runtime.powerState {shown}"
        if connected != "connected":
            found, detail = "unknown", f"{detail}, of before: its host is {connected}"
        epoch = marks.get(PREFIX + EPOCH, "")
        return SourceState(
            found, bool(marks.get(PREFIX + LOCKED)), epoch=int(epoch) if epoch.isdigit() else 0, detail=detail
        )

    def _known_state(self, subject: _Subject) -> SourceState:
        state = self._observe(subject)
        if state.power == "unknown":
            raise SourceUnavailable(f"{subject.machine}: {state.detail}", remedy="bring its host back, then again")
        return state

    def _refuse_running(self, subject: _Subject, what: str) -> None:
        state = self._known_state(subject)
        if not state.proved_off:
            raise SourceError(f"{subject.machine} is {state.power}, it cannot be {what}", remedy="stop it first")

    def _findings(self, subject: _Subject) -> Iterator[Finding]:
        state = self._observe(subject)
        if state.power == "unknown":
            yield Finding("error", "power", state.detail, "bring its host back")
        tools = values_of(self._connection, subject.object, "guest.toolsRunningStatus")
        if state.power == "on" and tools.get("guest.toolsRunningStatus") != "guestToolsRunning":
            yield Finding(
                "warning",
                "tools",
                "VMware Tools do not run in it: it can only be switched off hard",
                "install or start them, or shut it down from inside before the cutover",
            )
        if missing := self._missing(subject):
            yield Finding(
                "error", "rights", f"the user lacks {', '.join(missing)} on it", "add them to the user's role"
            )
        yield Finding(
            "note", "lock", "vSphere keeps nobody who holds the right to from switching it on: tell those who do"
        )

    def _missing(self, subject: _Subject) -> list[str]:
        connection = self._connection
        manager = connection.content.authorizationManager
        if manager is None:
            return []
        try:
            answer = connection.asked(
                lambda: manager.HasPrivilegeOnEntities([subject.object], connection.session, list(_RIGHTS))
            )
        except (vmodl.fault.NotSupported, vmodl.fault.MethodNotFound):
            return []
        granted = {str(a.privId) for one in answer for a in one.privAvailability if a.isGranted}
        return [right for right in _RIGHTS if right not in granted]

    # -- details ---------------------------------------------------------------------------------------------------

    @property
    def _connection(self) -> Connection:
        with self._lock:
            if self._opened is None:
                self._opened = Connection(self._options)
            return self._opened

    def _settings(self, machine: str, settings: Mapping[str, Any]) -> VmwareSettings:
        return parse_settings(VmwareSettings, settings, kind="vmware", of=machine)

    def _subject(self, machine: str, settings: Mapping[str, Any]) -> _Subject:
        said = self._settings(machine, settings)
        thing = self._machine(machine, said)
        marks = Marks(self._connection, thing, self._context.control)
        lock = self._context.state / encode_machine(machine) / "lock"
        return _Subject(machine, thing, marks, Fence(machine, marks, lock, self._context.control))

    def _machine(self, machine: str, said: VmwareSettings) -> Any:
        key = f"{said.instance or said.name or machine}"
        if key in self._known:
            return self._connection.managed(vim.VirtualMachine, self._known[key])
        connection = self._connection
        if said.instance is not None:
            found = [thing] if (thing := find_machine(connection, said.instance)) is not None else []
        else:
            found = machines_called(connection, connection.content.rootFolder, said.name or machine)
        if len(found) != 1:
            raise UsageError(
                f"{machine}: {len(found) or 'no'} machine{'s' if len(found) > 1 else ''} at {connection.name} "
                f"{'have' if len(found) > 1 else 'has'} {'the instance UUID' if said.instance else 'the name'} {key}",
                remedy="say `name`, or `instance` with its instance UUID, in its settings",
            )
        self._known[key] = str(found[0]._moId)
        return found[0]


@contextmanager
def _explained(machine: str) -> Iterator[None]:
    """What the importer's parts raise leaves as errors of a source."""
    try:
        yield
    except Unsupported:
        raise
    except TargetUnavailable as error:
        raise SourceUnavailable(f"{machine}: {error.message}", remedy=error.remedy) from error
    except TargetBusy as error:
        raise SourceBusy(f"{machine}: {error.message}", remedy=error.remedy) from error
    except (TargetError, BootError) as error:
        raise SourceError(f"{machine}: {error.message}", remedy=error.remedy) from error
