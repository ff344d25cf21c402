"""Waiting for tasks of vSphere.

pyvmomi's own waiter reads the whole task, which fails for tasks of managers, and loops when the session ends. Here
leaf properties are waited for with WaitForUpdatesEx, a second at a time, so that Cancelled comes through; and a
machine that asks its user something is not taken for a slow one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.properties import values_of
from pipeline.errors import TargetBusy, TargetUnavailable
from pipeline.target import Control

STEP_SECONDS = 1
PATIENCE_SECONDS = 60.0
"""That vCenter may be silent while a task runs, as when its services restart; the task goes on at the host."""
_PATHS = ("info.state", "info.progress", "info.error", "info.result")
_Query = vmodl.query.PropertyCollector
_CANCEL = "run the same command again: it finds the task, and goes on from how that ended"


@dataclass(frozen=True, slots=True)
class Question:
    """What a machine asks before it goes on."""

    id: str
    text: str
    choices: dict[str, str]
    """Key -> what it says."""
    default: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as it is. `state`: queued, running, success, error; or gone: vSphere has forgotten it, or never had it."""

    state: str
    progress: int = 0
    result: Any = None
    error: Any = None

    @property
    def over(self) -> bool:
        return self.state not in ("queued", "running")


def look(connection: Connection, task: Any) -> Seen:
    """A task as it is now; what is to be done with one of an earlier run is for the caller to decide."""
    try:
        values = connection.asked(lambda: _read(connection, task))
    except vmodl.fault.ManagedObjectNotFound:
        return Seen("gone")
    except (REFUSED, *CUT) as fault:
        raise explain(fault, f"cannot look at the task {task._moId}") from fault
    return _seen(values)


def wait(
    connection: Connection,
    task: Any,
    control: Control,
    about: str,
    *,
    machine: Any = None,
    progress: Callable[[int], None] | None = None,
    answer: Callable[[Question], str | None] | None = None,
    cancel: bool = False,
) -> Any:
    """The task's result. `about` as in `faults.explain`; `machine`: whose questions are looked for meanwhile; `answer`
    gives the key of the choice, or None, which raises TargetBusy with the question; `cancel`: the task is cancelled
    when we are.

    Raises the error that the task's fault means; Cancelled; TargetUnavailable when the task is gone, or nothing could
    be learnt of it: that is no failure, note its id beforehand and look again.
    """
    try:
        return _wait(connection, task, control, about, machine, progress, answer)
    except BaseException:
        if cancel:
            cancel_task(connection, task)
        raise


def cancel_task(connection: Connection, task: Any) -> bool:
    """Ask for its end. False: it cannot be cancelled, or is over."""
    try:
        connection.asked(task.CancelTask)
    except (REFUSED, *CUT):
        return False
    return True


def question_of(connection: Connection, machine: Any) -> Question | None:
    """What the machine waits for, if anything."""
    asked = values_of(connection, machine, "runtime.question").get("runtime.question")
    if asked is None:
        return None
    options = asked.choice.choiceInfo
    default = asked.choice.defaultIndex
    return Question(
        str(asked.id),
        str(asked.text),
        {str(option.key): str(option.label) for option in options},
        str(options[default].key) if default is not None and 0 <= default < len(options) else "",
    )


def _wait(
    connection: Connection,
    task: Any,
    control: Control,
    about: str,
    machine: Any,
    progress: Callable[[int], None] | None,
    answer: Callable[[Question], str | None] | None,
) -> Any:
    shown = -1
    silent: float | None = None
    """Since when."""
    watched = _Watched(connection, task)
    try:
        while True:
            control.check()
            try:
                seen = watched.next()
            except vmodl.fault.ManagedObjectNotFound as fault:
                raise TargetUnavailable(
                    f"{about}: vSphere no longer knows the task {task._moId}", remedy=_CANCEL
                ) from fault
            except REFUSED as fault:
                raise explain(fault, about) from fault
            except CUT as fault:
                silent = silent or time.monotonic()
                if time.monotonic() - silent < PATIENCE_SECONDS:
                    continue  # a second has passed: questions are put again with pauses
                raise TargetUnavailable(
                    f"{about}: {connection.name} is silent while the task {task._moId} runs; how it ended is not known "
                    f"({fault})",
                    remedy=_CANCEL,
                ) from fault
            silent = None
            if seen.progress != shown and progress is not None:
                shown = seen.progress
                progress(shown)
            if seen.state == "success":
                return seen.result
            if seen.state == "error":
                raise explain(seen.error, about) from seen.error
            if machine is not None:
                _put(connection, machine, about, answer)
    finally:
        watched.drop()


def _put(connection: Connection, machine: Any, about: str, answer: Callable[[Question], str | None] | None) -> None:
    question = question_of(connection, machine)
    if question is None:
        return
    key = answer(question) if answer else None
    if key is None:
        choices = ", ".join(f"{label!r}" for label in question.choices.values())
        raise TargetBusy(
            f"{about}: the machine waits for an answer: {question.text} ({choices})",
            remedy="answer it in the vSphere client, then run the same command again",
        )
    connection.order(lambda: machine.AnswerVM(question.id, key), f"{about}: cannot answer its question")


class _Watched:
    """A filter on one task, made again after a new login."""

    def __init__(self, connection: Connection, task: Any) -> None:
        self._connection, self._task = connection, task
        self._collector: Any = None
        self._filter: Any = None
        self._version = ""
        self._values: dict[str, Any] = {}

    def next(self) -> Seen:
        """The task after the next change, or after a second."""
        self._connection.asked(self._update)
        return _seen(self._values)

    def _update(self) -> None:
        collector = self._connection.collector()
        if collector is not self._collector:
            self._collector, self._version = collector, ""
            what = _Query.PropertySpec(type=vim.Task, pathSet=list(_PATHS), all=False)
            spec = _Query.FilterSpec(objectSet=[_Query.ObjectSpec(obj=self._task)], propSet=[what])
            self._filter = collector.CreateFilter(spec, True)
        update = collector.WaitForUpdatesEx(self._version, _Query.WaitOptions(maxWaitSeconds=STEP_SECONDS))
        if update is None:
            return
        self._version = update.version
        for part in update.filterSet or []:
            for changed in part.objectSet or []:
                if changed.kind == "leave":
                    raise vmodl.fault.ManagedObjectNotFound(obj=self._task)
                for change in changed.changeSet or []:
                    self._values[change.name] = change.val

    def drop(self) -> None:
        if self._filter is not None:
            try:
                self._filter.DestroyPropertyFilter()
            except (REFUSED, *CUT):
                pass  # it goes with the session


def _read(connection: Connection, task: Any) -> dict[str, Any]:
    what = _Query.PropertySpec(type=vim.Task, pathSet=list(_PATHS), all=False)
    spec = _Query.FilterSpec(objectSet=[_Query.ObjectSpec(obj=task)], propSet=[what])
    answer = connection.collector().RetrievePropertiesEx([spec], _Query.RetrieveOptions())
    return {p.name: p.val for seen in answer.objects for p in seen.propSet}


def _seen(values: dict[str, Any]) -> Seen:
    return Seen(
        str(values.get("info.state", "queued")),
        int(values.get("info.progress") or 0),
        values.get("info.result"),
        values.get("info.error"),
    )
