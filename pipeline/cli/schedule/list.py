"""`failback schedule list`: what this host does by its clock, and what came of it last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.schedule.where import FolderOption, results_folder, units_folder

if TYPE_CHECKING:
    from pipeline.schedule.job import Mark


@command
def list_(invocation: Invocation, folder: FolderOption = None) -> Ending:
    """List what failback has in this host's timers and crontab, of all plans and repositories."""
    from pipeline.schedule import cron, systemd
    from pipeline.schedule.lock import last
    from pipeline.units import moment

    found: list[tuple[Mark, str, str]] = [
        (mark, calendar, str(path)) for mark, calendar, path in systemd.entries(units_folder(folder)[0])
    ]
    if folder is None and cron.there():
        found += [(mark, fields, "crontab") for mark, fields in cron.entries(cron.read())]
    rows, values = [], list[dict[str, Any]]()
    for mark, calendar, where in found:
        came = last(results_folder(invocation), mark.name)
        said = f"{moment(came['time'])}: exit code {came.get('exit_code')}" if "time" in came else "never ran here"
        rows.append((mark.plan, mark.job, calendar, said, where))
        values.append(
            {"plan": mark.plan, "job": mark.job, "repository": mark.repository, "calendar": calendar, "where": where}
            | {"last": came or None}
        )
    if rows:
        invocation.output.table(("PLAN", "JOB", "WHEN", "LAST", "WHERE"), rows)
    else:
        invocation.output.say("nothing is scheduled on this host: `failback schedule install PLAN` does so")
    return Ending(values={"schedule": values})
