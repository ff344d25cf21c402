"""Plans as commands name them: a file, or one that is in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.cli.invocation import Invocation
    from pipeline.plans.stored import Stored
    from pipeline.repository import Repository


def plan_of(invocation: Invocation, repository: Repository, given: str) -> Stored:
    """A file is stored as its plan's next version, unless the newest says the same. Raises UsageError,
    CatalogueError."""
    from pipeline.plans.parse import read_plan
    from pipeline.plans.stored import parse_version, put, read

    if Path(given).is_file() or "/" in given or given.endswith((".yaml", ".yml")):
        plan, document = read_plan(given)
        stored, fresh = put(repository, plan, document)
        if fresh:
            invocation.note(f"{given} is stored as {stored.label}")
        return stored
    name, version = parse_version(given)
    return read(repository, name, version)
