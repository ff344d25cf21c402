"""`failback rehearse`: try a whole plan out, and leave nothing behind."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conducting import conducted


@command
def rehearse(
    invocation: Invocation,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file, or NAME[@VERSION] of one in the repository.")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Try again what fails in a way that passes; else end (for cron).")
    ] = True,
) -> Ending:
    """Stage the newest points of a plan's machines, boot them by waves in networks of their own, check and picture
    them, and throw all of it away but the stages: the next refresh moves only what differs.

    The takeover side is not touched, and no machine has its production name, address or a way to a network.
    """
    from pipeline.cli.planned import plan_of
    from pipeline.runs.begin import begin

    repository = invocation.open_repository()
    stored = plan_of(invocation, repository, plan)
    begun = begin(repository, stored, "rehearsal")
    invocation.note(f"rehearsal {begun.run} of {stored.label}" + ("" if begun.fresh else " goes on"))
    return conducted(invocation, begun.run, stored, wait=wait, attend=False)
