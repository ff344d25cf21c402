"""Hooks by name, ours and those of other packages: entry points of the group `failback.hooks`."""

from __future__ import annotations

from typing import Any

from pipeline.plugins import installed, load
from pipeline.verify.hook import Hook

GROUP = "failback.hooks"


def hook_names() -> list[str]:
    return installed(GROUP)


def hook_class(name: str) -> type[Hook[Any]]:
    """Raises UsageError when no installed package has it, when several have, or when it cannot be loaded."""
    kind: type[Hook[Any]] = load(GROUP, name, what="a hook", unknown=f"{name!r} is not a hook", base=Hook)
    return kind
