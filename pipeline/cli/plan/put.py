"""`failback plan put`: store a plan as the next version."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command


@command
def put(invocation: Invocation, file: Annotated[str, typer.Argument(metavar="FILE", help="The plan, YAML.")]) -> Ending:
    """Store a plan in the repository, as its next version, which stays for ever. Where the newest means the same,
    nothing is stored. `failback run start FILE` does so, too."""
    from pipeline.plans.parse import read_plan
    from pipeline.plans.stored import put as put_plan

    plan, document = read_plan(file)
    stored, fresh = put_plan(invocation.open_repository(), plan, document)
    invocation.output.say(f"{file} is stored as {stored.label}" if fresh else f"{stored.label} says the same already")
    return Ending(values={"plan": stored.plan.name, "version": stored.version, "digest": stored.digest, "fresh": fresh})
