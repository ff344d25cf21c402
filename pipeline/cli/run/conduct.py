"""`failback run conduct`: go on with a run, from this host."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conducting import AttendOption, WaitOption, conducted

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Its name, or its plan's: the newest of that plan.")]


@command
def conduct(invocation: Invocation, run: RunArgument, wait: WaitOption = True, attend: AttendOption = False) -> Ending:
    """Go on with a run whose conductor ended, was killed, or gives no sign of life any more; all it needs to know is
    in the repository."""
    from pipeline.runs.begin import find_run

    state, stored = find_run(invocation.open_repository(), run)
    return conducted(invocation, state.run, stored, wait=wait, attend=attend)
