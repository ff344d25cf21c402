"""`failback schedule remove`: take timers and crontab lines of a plan away."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.schedule.where import FolderOption, units_folder
from pipeline.errors import CatalogueError


@command
def remove(
    invocation: Invocation,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Its name.")],
    job: Annotated[
        list[str] | None, typer.Option(metavar="JOB", help="Only this one; repeat it for more. Default: all.")
    ] = None,
    folder: FolderOption = None,
) -> Ending:
    """Take what `install` wrote for a plan of this repository away, and nothing else. A job that works just now comes
    to its end."""
    from pipeline.schedule import cron, systemd

    repository = invocation.open_repository().document.id
    at, user = units_folder(folder)
    marks = [mark for mark, _, _ in systemd.entries(at) if mark.fits(repository, plan, job or ())]
    if folder is None and systemd.running():
        for mark in marks:
            systemd.tell("disable", "--now", f"{mark.name}.timer", user=user)
    gone = [str(path) for path in systemd.remove(at, marks)]
    if folder is None and gone and systemd.running():
        systemd.tell("daemon-reload", user=user)
    if folder is None and cron.there():
        table = cron.read()
        lines = [mark for mark, _ in cron.entries(table) if mark.fits(repository, plan, job or ())]
        if lines:
            cron.write(cron.installed(table, [], lines))
            gone += [f"crontab: {mark.job}" for mark in lines]
    if not gone:
        raise CatalogueError(
            f"nothing of plan {plan} is scheduled on this host", remedy="`failback schedule list` shows what is"
        )
    for what in gone:
        invocation.output.say(f"removed: {what}")
    return Ending(values={"plan": plan, "removed": gone})
