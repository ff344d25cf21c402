"""`failback run list`: all runs, and where they are."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command


@command
def list_(
    invocation: Invocation, plan: Annotated[str, typer.Argument(metavar="[PLAN]", help="Only of this plan.")] = ""
) -> Ending:
    """Show runs, oldest first."""
    from pipeline.runs.begin import runs
    from pipeline.runs.report import headline

    found = runs(invocation.open_repository(), plan)
    rows = [
        [s.run, f"{s.plan}@{s.version}", s.purpose, f"{s.started:%Y-%m-%d %H:%M:%S}", headline(s)]
        for s in found
        if s.started
    ]
    if rows:
        invocation.output.table(["run", "plan", "purpose", "started (UTC)", "state"], rows)
    else:
        invocation.output.say("no plan was ever run" if not plan else f"plan {plan} was never run")
    return Ending(values={"runs": [{"run": s.run, "plan": s.plan, "state": headline(s)} for s in found]})
