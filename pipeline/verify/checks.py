"""Checks: which hooks look at a machine, how patiently, in which order, and whether it matters.

    checks:
      - name: login prompt
        hook: console
        settings: {text: "login:"}
      - name: shop answers
        hook: https
        settings: {port: 443, host: shop.example.com, path: /health, status: 200}
        after: [login prompt]      # starts when these have passed; when one fails, this is skipped
        timeout: 10s               # of one attempt
        within: 5min               # as long it is tried again
        retry: {interval: 2s, factor: 1.5, max: 30s}
      - name: mail goes out
        hook: tcp
        settings: {port: 25}
        level: advisory            # its failure is reported and does not count

Short forms for the command line: `pipeline.verify.short`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import Field, ValidationError

from manifests.machine import Model
from pipeline.errors import UsageError
from pipeline.verify.duration import Seconds
from pipeline.verify.hook import Hook
from pipeline.verify.registry import hook_class
from pipeline.verify.results import Level
from pipeline.verify.retry import Retry

KEY = "checks"


NAME_LENGTH = 200
"""Characters of a check's name."""


class Check(Model):
    """One check. `settings` are the hook's own."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
    hook: Annotated[str, Field(min_length=1)]
    settings: dict[str, Any] = Field(default_factory=dict)
    level: Level = "required"
    timeout: Annotated[Seconds, Field(gt=0)] = 30.0
    """Of one attempt."""
    within: Seconds = 300.0
    """How long it is tried again, from when it could begin. 0: one attempt."""
    retry: Retry | None = None
    """None: as the hook is usually tried again."""
    after: tuple[str, ...] = ()


def load_checks(document: Any, where: str) -> list[Check]:
    """The checks of a YAML or JSON document: what its key `checks` holds. Everything is validated, settings of hooks
    included. Raises UsageError that names `where` and the key."""
    found = document.get(KEY) if isinstance(document, dict) else None
    if not isinstance(found, list) or not found:
        raise UsageError(f"{where} has no list {KEY!r}", remedy="write `checks:` and, below it, one entry for each")
    checks = [_parsed(entry, f"{where}: {KEY}[{number}]") for number, entry in enumerate(found)]
    validate(checks, where)
    return checks


def validate(checks: Sequence[Check], where: str) -> None:
    """Names are unique, dependencies exist and have no cycle, hooks and their settings are right. Raises UsageError."""
    names = [check.name for check in checks]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two checks are named {name!r}", remedy="give each a name of its own")
    for check in checks:
        for other in check.after:
            if other not in names:
                raise UsageError(
                    f"{where}: check {check.name!r} comes after {other!r}, which is not there",
                    remedy=f"there are {', '.join(map(repr, names))}",
                )
    try:
        TopologicalSorter({check.name: check.after for check in checks}).prepare()
    except CycleError as error:
        raise UsageError(
            f"{where}: checks wait for each other: {' after '.join(map(repr, error.args[1][::-1]))}",
            remedy="take one of these out of an `after`",
        ) from None
    for check in checks:
        hook_of(check, where=f"{where}: check {check.name!r}")


def hook_of(check: Check, *, where: str = "") -> Hook[Any]:
    """A fresh hook with the check's settings. Raises UsageError."""
    where = where or f"check {check.name!r}"
    try:
        kind = hook_class(check.hook)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", remedy=error.remedy) from None
    try:
        return kind(kind.Settings.model_validate(check.settings))
    except ValidationError as error:
        raise _refused(error, f"{where}: settings", kind.Settings) from None


def ports_of(checks: Iterable[Check]) -> tuple[int, ...]:
    """TCP ports of the guest that the checks connect to, for platforms that forward them from the start."""
    return tuple(sorted({port for check in checks for port in hook_of(check).ports()}))


def _parsed(entry: Any, where: str) -> Check:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is not a mapping", remedy=f"its keys are {', '.join(Check.model_fields)}")
    try:
        return Check.model_validate(entry)
    except ValidationError as error:
        raise _refused(error, where, Check) from None


def _refused(error: ValidationError, where: str, model: type[Model]) -> UsageError:
    problems = []
    for problem in error.errors(include_url=False, include_input=False):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            text = "is not known"
        elif problem["type"] == "missing":
            text = "is missing"
        else:
            text = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{where}{place}: {text}")
    return UsageError("; ".join(problems), remedy=f"keys here are {', '.join(model.model_fields) or 'none'}")
