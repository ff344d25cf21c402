"""`failback plan list`: the plans of a repository, or the versions of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import FormatError

if TYPE_CHECKING:
    from pipeline.plans.stored import Stored


@command
def list_(
    invocation: Invocation,
    plan: Annotated[str, typer.Argument(metavar="[NAME]", help="Whose versions; all plans without it.")] = "",
) -> Ending:
    """List the plans of a repository with their newest versions, or all versions of one."""
    from pipeline.plans.stored import parse_version, plan_names, read, versions
    from pipeline.units import moment

    repository = invocation.open_repository()
    wanted: list[tuple[str, int | None]] = [(name, None) for name in plan_names(repository)]
    if plan:
        name, _ = parse_version(plan)
        numbers = versions(repository, name)
        if not numbers:
            read(repository, name)  # raises the error that says which plans there are
        wanted = [(name, number) for number in numbers]
    found: list[dict[str, Any]] = []
    rows = []
    for name, number in wanted:
        try:
            stored = read(repository, name, number)
        except FormatError as error:
            invocation.warn(f"{error.message}; left out here")
            continue
        found.append(_values(stored))
        machines, groups = len(stored.plan.machines), len(stored.plan.groups)
        rows.append((stored.label, moment(stored.time), stored.by, stored.plan.target, str(groups), str(machines)))
    if rows:
        columns = ("PLAN", "STORED", "BY", "TARGET", "GROUPS", "MACHINES")
        invocation.output.table(columns, rows, right=(4, 5))
    elif not plan:
        invocation.output.say("the repository holds no plan yet: `failback plan new` makes one")
    return Ending(values={"plans": found})


def _values(stored: Stored) -> dict[str, Any]:
    return {
        "plan": stored.plan.name,
        "version": stored.version,
        "digest": stored.digest,
        "time": stored.time,
        "by": stored.by,
        "target": stored.plan.target,
        "groups": {group.name: list(group.machines) for group in stored.plan.groups},
    }
