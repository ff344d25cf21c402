"""What packages bring, ours and others': entry points by group and name."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from pipeline.errors import UsageError


def installed(group: str) -> list[str]:
    """Names of all, sorted."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load(group: str, name: str, *, what: str, unknown: str, base: type[Any] | None = None) -> Any:
    """What the one entry point of that name stands for: with `base` a subclass of it.

    `what` is the thing with its article (`a hook`), `unknown` what is said when there is none. Raises UsageError then,
    when several packages have it, and when it cannot be loaded.
    """
    entries = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not entries:
        raise UsageError(unknown, remedy=f"known are {', '.join(installed(group)) or 'none'}")
    if len(entries) > 1:
        raise UsageError(
            f"several packages have {what} {name!r}: {', '.join(sorted(entries))}", remedy="uninstall all but one"
        )
    [entry] = entries.values()
    thing = what.partition(" ")[2]
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{thing} {name!r} cannot be loaded from {entry.value}: {error}",
            remedy="install what it needs, or the package that brings it again",
        ) from error
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(
            f"{thing} {name!r}: {entry.value} is not a subclass of {base.__module__}.{base.__name__}",
            remedy=f"see the contract in {base.__module__.replace('.', '/')}.py",
        )
    return found
