"""`failback run start`: begin to execute a plan, or go on with it."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conducting import AttendOption, WaitOption, conducted


@command
def start(
    invocation: Invocation,
    plan: Annotated[
        str,
        typer.Argument(metavar="PLAN", help="A file, which is stored as the plan's next version, or NAME[@VERSION]."),
    ],
    wait: WaitOption = True,
    attend: AttendOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Only begin it: `failback run conduct`, here or elsewhere, does the rest.")
    ] = False,
) -> Ending:
    """Bring a plan's machines home: wait for its conditions, export, stage, rehearse, ask, cut over, verify, commit.

    A run that is not over yet goes on. It ends here when it is over, or when a person is asked (exit code 15).
    """
    from pipeline.cli.planned import plan_of
    from pipeline.runs.begin import begin

    repository = invocation.open_repository()
    stored = plan_of(invocation, repository, plan)
    begun = begin(repository, stored)
    invocation.note(f"run {begun.run} of {stored.label}" + ("" if begun.fresh else " goes on"))
    if detach:
        invocation.output.say(f"{begun.run} is begun; `failback run conduct {begun.run}` conducts it")
        return Ending(values={"run": begun.run, "fresh": begun.fresh})
    return conducted(invocation, begun.run, stored, wait=wait, attend=attend)
