"""`failback run runbook`: how to finish a run, or to go back, by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.cli.documents import write_bytes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conduct import RunArgument


@command
def runbook(
    invocation: Invocation,
    run: RunArgument,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Write it there instead of printing it.")] = "",
) -> Ending:
    """Write a Markdown page that says where everything is, and what a person would do if this tool were gone. Print it
    before a cutover."""
    from pipeline.cli.grounds import ground_of
    from pipeline.errors import FailbackError
    from pipeline.home.site import open_site
    from pipeline.runs.begin import find_run
    from pipeline.runs.ownership import current
    from pipeline.runs.runbook import runbook as written

    repository = invocation.open_repository()
    state, stored = find_run(repository, run)
    ground = ground_of(invocation, stored.plan.mapping)

    def place(machine: str) -> dict[str, Any]:
        try:
            with open_site(ground, stored.plan.target, machine, "import") as site:
                found = site.find()
        except FailbackError as error:
            return {"not known": error.message}
        if found is None:
            return {}
        parts = {"place": found.ref, "disks": found.stage.ref if found.stage else {}}
        parts |= {"machine": found.build.ref if found.build else {}}
        return {"state": found.state, **{f"{k} {n}": v for k, ref in parts.items() for n, v in ref.items()}}

    page = written(state, stored.plan, lambda machine: current(repository, machine), place)
    if out:
        write_bytes(out, page.encode())
        invocation.output.say(f"{out} says how to finish {state.run}, or to go back, by hand")
    else:
        invocation.output.say(page.rstrip())
    return Ending(values={"run": state.run, "markdown": page})
