"""What the values of a plan must have to do with each other, and with what is installed on this host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.finding import Finding
from pipeline.importers import importer_names
from pipeline.plans.condition import Look
from pipeline.plans.model import Condition, Plan, TrafficStep
from pipeline.plans.refused import refused
from pipeline.plans.registry import SOURCES, condition_class, names, traffic_class
from pipeline.plans.traffic import Gate
from pipeline.target import Importer
from pipeline.verify.checks import validate as validate_checks
from pipeline.wanted import Wanted


def check_structure(plan: Plan, where: str) -> None:
    """Names are unique and what is named exists; nothing waits for itself. Raises UsageError that names `where`, the
    key, and what is allowed. Asks for nothing outside the plan: what was right once stays right."""
    _unique(where, "groups", [group.name for group in plan.groups])
    _unique(where, "conditions", [condition.name for condition in plan.conditions])
    for number, group in enumerate(plan.groups):
        _unique(where, f"groups[{number}].traffic", [step.name for step in group.traffic])
    _machines_in_groups(plan, where)
    _named(where, "mapping.machines", plan.mapping.machines, plan.machines)
    _needs(plan, where)
    _after(plan, where)


def check_kinds(plan: Plan, where: str) -> None:
    """The target, the source, conditions, traffic steps and hooks are installed here, and their settings are right.
    Raises UsageError."""
    if plan.target not in importer_names():
        raise UsageError(
            f"{where}: target: {plan.target!r} is no target", remedy=f"known are {', '.join(importer_names())}"
        )
    if plan.source.kind not in names(SOURCES):
        raise UsageError(
            f"{where}: source.kind: {plan.source.kind!r} is no kind of source",
            remedy=f"known are {', '.join(names(SOURCES)) or 'none: install a package that brings one'}",
        )
    for name, machine in plan.machines.items():
        validate_checks(machine.checks, f"{where}: machines.{name}")
    for number, condition in enumerate(plan.conditions):
        place = f"{where}: conditions[{number}]"
        with _at(place):
            condition_of(condition, place).check(plan)
    for number, group in enumerate(plan.groups):
        for index, step in enumerate(group.traffic):
            place = f"{where}: groups[{number}].traffic[{index}]"
            with _at(place):
                traffic_of(step, place).check(plan, group)


def condition_of(condition: Condition, where: str = "") -> Look[Any]:
    """A fresh condition with its settings. Raises UsageError."""
    return _made(condition_class, condition, where or f"condition {condition.name!r}")


def traffic_of(step: TrafficStep, where: str = "") -> Gate[Any]:
    """A fresh traffic step with its settings. Raises UsageError."""
    return _made(traffic_class, step, where or f"traffic step {step.name!r}")


def traffic_findings(plan: Plan, machine: str, importer: Importer, wanted: Wanted) -> list[Finding]:
    """What the steps of the machine's group find beforehand. Raises FailbackError."""
    found = []
    for step in plan.group_of(machine).traffic:
        for finding in traffic_of(step).preflight(machine, importer, wanted):
            found.append(replace(finding, subject=f"traffic {step.name}: {finding.subject}"))
    return found


@contextmanager
def _at(place: str) -> Iterator[None]:
    """What a kind says of its settings is told with the place where they stand."""
    try:
        yield
    except UsageError as error:
        if not error.message.startswith(place):
            error.message = f"{place}: {error.message}"
        raise


M = TypeVar("M", Look[Any], Gate[Any])


def _made(find: Callable[[str], type[M]], named: Condition | TrafficStep, where: str) -> M:
    try:
        kind = find(named.kind)
    except UsageError as error:
        raise UsageError(f"{where}: kind: {error.message}", remedy=error.remedy) from None
    try:
        return kind(kind.Settings.model_validate(named.settings))
    except ValidationError as error:
        raise refused(error, kind.Settings, where, at="settings") from None


def _machines_in_groups(plan: Plan, where: str) -> None:
    seen: dict[str, str] = {}
    for group in plan.groups:
        for number, wave in enumerate(group.waves):
            place = f"groups.{group.name}.waves[{number}]"
            _named(where, place, wave, plan.machines)
            for machine in wave:
                if machine in seen:
                    raise UsageError(
                        f"{where}: {place}: {machine} is in {seen[machine]} already",
                        remedy="a machine is in one wave of one group; take it out of the others",
                    )
                seen[machine] = place
    if left := sorted(plan.machines.keys() - seen.keys()):
        raise UsageError(
            f"{where}: machines.{left[0]}: it is in no group",
            remedy=f"put it into a wave of a group, or take it out of `machines`; in none are {', '.join(left)}",
        )


def _needs(plan: Plan, where: str) -> None:
    for name, machine in plan.machines.items():
        at = f"machines.{name}.needs"
        _named(where, at, machine.needs, plan.machines)
        waves = plan.group_of(name).waves
        own = next(number for number, wave in enumerate(waves) if name in wave)
        for needed in machine.needs:
            if any(needed in wave for wave in waves[own + 1 :]):
                raise UsageError(
                    f"{where}: {at}: {needed} boots in a later wave than {name}, which needs it",
                    remedy=f"put {needed} into an earlier wave, or {name} into a later one",
                )
    _no_cycle(where, "machines need each other", {name: m.needs for name, m in plan.machines.items()}, "needs")


def _after(plan: Plan, where: str) -> None:
    known = {group.name: group.after for group in plan.groups}
    for name, after in known.items():
        _named(where, f"groups.{name}.after", after, known)
    _no_cycle(where, "groups wait for each other", known, "after")


def _unique(where: str, at: str, found: Sequence[str]) -> None:
    for name in found:
        if found.count(name) > 1:
            raise UsageError(f"{where}: {at}: two are named {name!r}", remedy="give each a name of its own")


def _named(where: str, at: str, found: Iterable[str], known: Mapping[str, Any]) -> None:
    for name in found:
        if name not in known:
            raise UsageError(f"{where}: {at}: there is no {name!r}", remedy=f"there are {', '.join(known)}")


def _no_cycle(where: str, what: str, graph: Mapping[str, Sequence[str]], word: str) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise UsageError(
            f"{where}: {what}: {f' {word} '.join(error.args[1][::-1])}", remedy=f"take one of these out of a `{word}`"
        ) from None
