"""Hooks by name, ours and those of other packages: entry points of the group `failback.hooks`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from pipeline.errors import UsageError
from pipeline.verify.hook import Hook

GROUP = "failback.hooks"


def hook_names() -> list[str]:
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def hook_class(name: str) -> type[Hook[Any]]:
    """Raises UsageError when no installed package has it, when several have, or when it cannot be loaded."""
    entries = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    if not entries:
        raise UsageError(f"{name!r} is not a hook", remedy=f"known are {', '.join(hook_names())}")
    if len(entries) > 1:
        raise UsageError(
            f"several packages have a hook {name!r}: {', '.join(sorted(entries))}", remedy="uninstall all but one"
        )
    entry = next(iter(entries.values()))
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"hook {name!r} cannot be loaded from {entry.value}: {error}", remedy="install its package again"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Hook)):
        raise UsageError(
            f"hook {name!r}: {entry.value} is not a subclass of pipeline.verify.hook.Hook",
            remedy="see the contract in pipeline/verify/hook.py",
        )
    return found
