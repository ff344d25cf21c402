"""Plans as commands that only look at them get them: a file, or NAME[@VERSION] of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.cli.invocation import Invocation
    from pipeline.plans.model import Plan

FILE_OR_NAME = "A file, or NAME[@VERSION] of one that is stored."


def is_file(given: str) -> bool:
    return Path(given).is_file() or "/" in given or given.endswith((".yaml", ".yml", ".json"))


def given_plan(invocation: Invocation, given: str, *, installed: bool = True) -> tuple[Plan, dict[str, Any], str]:
    """The plan, its document, and what it is called. `installed`: the kinds of a stored one have to be here, too; those
    of a file always have to. Stores nothing. Raises UsageError, CatalogueError."""
    from pipeline.plans.parse import parse_plan, read_plan
    from pipeline.plans.stored import parse_version, read

    if is_file(given):
        return *read_plan(given), given
    name, version = parse_version(given)
    stored = read(invocation.open_repository(), name, version)
    if installed:
        parse_plan(stored.document, where=stored.label)
    return stored.plan, stored.document, stored.label
