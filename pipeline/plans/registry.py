"""Conditions, traffic steps and sources by name, ours and those of other packages: entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from pipeline.errors import UsageError
from pipeline.plans.condition import Look
from pipeline.plans.traffic import Gate

CONDITIONS = "failback.conditions"
TRAFFIC = "failback.traffic"
SOURCES = "failback.sources"


def names(group: str) -> list[str]:
    return sorted({entry.name for entry in entry_points(group=group)})


def condition_class(name: str) -> type[Look[Any]]:
    """Raises UsageError when no installed package has it, when several have, or when it cannot be loaded."""
    return _loaded(CONDITIONS, name, "condition", Look)


def traffic_class(name: str) -> type[Gate[Any]]:
    """Raises UsageError as `condition_class`."""
    return _loaded(TRAFFIC, name, "traffic step", Gate)


def _loaded(group: str, name: str, what: str, base: type[Any]) -> type[Any]:
    entries = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not entries:
        raise UsageError(f"{name!r} is no kind of {what}", remedy=f"known are {', '.join(names(group)) or 'none'}")
    if len(entries) > 1:
        raise UsageError(
            f"several packages have a {what} {name!r}: {', '.join(sorted(entries))}", remedy="uninstall all but one"
        )
    [entry] = entries.values()
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{what} {name!r} cannot be loaded from {entry.value}: {error}", remedy="install its package again"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(
            f"{what} {name!r}: {entry.value} is not a subclass of {base.__module__}.{base.__name__}",
            remedy=f"see the contract in {base.__module__.replace('.', '/')}.py",
        )
    return found
