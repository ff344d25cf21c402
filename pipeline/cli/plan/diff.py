"""`failback plan diff`: what two plans, or two versions of one, say differently."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.plan.given import FILE_OR_NAME, given_plan


@command
def diff(
    invocation: Invocation,
    old: Annotated[str, typer.Argument(metavar="PLAN", help=FILE_OR_NAME)],
    new: Annotated[str, typer.Argument(metavar="PLAN", help=FILE_OR_NAME)],
) -> Ending:
    """Show what differs between two plans, key by key. What is left out counts as its default."""
    from pipeline.plans.difference import differences

    before, _, first = given_plan(invocation, old, installed=False)
    after, _, second = given_plan(invocation, new, installed=False)
    found = differences(before, after)
    for change in found:
        invocation.output.say(f"{change.at}: {_shown(change.old)} -> {_shown(change.new)}")
    if not found:
        invocation.output.say(f"{first} and {second} mean the same")
    return Ending(values={"differences": [{"at": c.at, "old": c.old, "new": c.new} for c in found]})


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
