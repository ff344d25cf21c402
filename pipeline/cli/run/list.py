"""`failback run list`: all runs, and where they are."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command


@command
def list_(
    invocation: Invocation, plan: Annotated[str, typer.Argument(metavar="[PLAN]", help="Only of this plan.")] = ""
) -> Ending:
    """Show runs, oldest first. One whose journal is damaged is named (exit code 5)."""
    from pipeline.errors import FormatError
    from pipeline.runs.begin import is_of, run_names
    from pipeline.runs.journal import Journal, state_of
    from pipeline.runs.report import headline

    repository, found, damaged = invocation.open_repository(), [], dict[str, FormatError]()
    for name in run_names(repository):
        if plan and not is_of(name, plan):
            continue
        try:
            state = state_of(Journal(repository, name))
        except FormatError as error:  # the others are shown all the same
            damaged[name] = error
            continue
        found += [state] if state.number else []
    rows = [
        [s.run, f"{s.plan}@{s.version}", s.purpose, f"{s.started:%Y-%m-%d %H:%M:%S}", headline(s)]
        for s in found
        if s.started
    ]
    rows += [[name, "?", "?", "?", f"not to be read: {error.message}"] for name, error in damaged.items()]
    if rows:
        invocation.output.table(["run", "plan", "purpose", "started (UTC)", "state"], rows)
    else:
        invocation.output.say("no plan was ever run" if not plan else f"plan {plan} was never run")
    values: list[dict[str, str | None]] = [{"run": s.run, "plan": s.plan, "state": headline(s)} for s in found]
    values += [{"run": name, "plan": None, "state": f"not to be read: {e.message}"} for name, e in damaged.items()]
    return Ending(next((error.exit_code for error in damaged.values()), 0), {"runs": values})
