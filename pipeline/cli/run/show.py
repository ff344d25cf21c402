"""`failback run show`: where a run is, what it waits for, and what going back would cost."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conduct import RunArgument
from pipeline.cli.run.conducting import written_here


@command
def show(
    invocation: Invocation,
    run: RunArgument,
    journal: Annotated[bool, typer.Option("--journal", help="Every entry of its journal, too.")] = False,
) -> Ending:
    """Show a run. Changes nothing. While users are in and going back is possible the target is asked how much they
    wrote; nothing else is asked of any platform."""
    from pipeline.runs.begin import find_run
    from pipeline.runs.journal import Journal
    from pipeline.runs.report import document, entry_line, lines
    from pipeline.runs.status import looked_at, status_lines, status_of

    repository = invocation.open_repository()
    state, stored = find_run(repository, run)
    looked = looked_at(repository, state.run) if state.waits else None
    now = status_lines(state, status_of(repository, state), looked) if state.outcome is None else []
    written = written_here(invocation, state, stored)
    invocation.output.say(*lines(state, stored.plan, None, written), *now)
    values = document(state, stored.plan, None, written)
    if journal:
        kept = Journal(repository, state.run)
        kept.read()
        invocation.output.say("", *map(entry_line, kept.entries))
        values["journal"] = [
            {"number": e.number, "time": e.time.isoformat(), "by": e.by, **e.body.model_dump(mode="json")}
            for e in kept.entries
        ]
    return Ending(values=values)
