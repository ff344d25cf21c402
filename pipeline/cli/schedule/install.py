"""`failback schedule install`: write timers or crontab lines for a plan."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.schedule.where import FolderOption, How, HowOption, chosen, units_folder
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.schedule.job import Job, Mark

_IN_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "FAILBACK_VMWARE_PASSWORD")
"""What the clock's calls will miss."""


@command
def install(
    invocation: Invocation,
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="A file, which is stored as the plan's next version, or NAME.")
    ],
    how: HowOption = How.AUTO,
    folder: FolderOption = None,
    show: Annotated[bool, typer.Option("--print", help="Show what would be written, and write nothing.")] = False,
) -> Ending:
    """Have this host do by its clock what the plan's `schedule` says: exports, looks at the conditions (which start the
    run when all hold), scrubs, collections, rehearsals. What was installed before for this plan is replaced; nothing
    else is touched. The newest version of the plan is what counts, whenever a job begins."""
    from pipeline.cli.plan.given import given_plan
    from pipeline.cli.planned import plan_of
    from pipeline.plans.parse import parse_plan
    from pipeline.schedule.calendar import check_calendar
    from pipeline.schedule.job import jobs_of
    from pipeline.store.address import parse_address

    repository = invocation.open_repository()
    if show:
        found, _, label = given_plan(invocation, plan)
    else:
        stored = plan_of(invocation, repository, plan)
        found, label = parse_plan(stored.document, where=stored.label), stored.label
    if not found.schedule:
        raise UsageError(f"{label} has no schedule", remedy="write `schedule: {export: hourly}` into the plan")
    for kind, calendar in found.schedule.items():
        try:
            check_calendar(calendar)
        except UsageError as error:
            raise UsageError(f"{label}: schedule.{kind}: {error.message}", remedy=error.remedy) from None
    address = str(parse_address(invocation.address))
    failback = (sys.executable, "-m", "pipeline.cli.main", "--repository", address)
    jobs = jobs_of(found, repository.document.id, failback)
    if missed := [name for name in _IN_ENVIRONMENT if name in os.environ]:
        invocation.warn(f"{', '.join(missed)} will not be there by the clock: keep credentials in files")
    where = chosen(how, folder)
    values: dict[str, Any] = {"plan": found.name, "as": where.value, "jobs": {j.mark.job: j.calendar for j in jobs}}
    if where is How.SYSTEMD:
        values["written"] = _systemd(invocation, jobs, folder, show=show)
    else:
        values["written"] = _cron(invocation, jobs, show=show)
    return Ending(values=values)


def _systemd(invocation: Invocation, jobs: Sequence[Job], folder: Path | None, *, show: bool) -> list[str]:
    from pipeline.schedule import systemd

    systemd.verify(jobs)
    at, user = units_folder(folder)
    if show:
        for job in jobs:
            for name, text in systemd.units(job).items():
                invocation.output.say(f"# {at / name}", text)
        return []
    wanted = {job.mark for job in jobs}
    gone = [mark for mark, _, _ in systemd.entries(at) if mark not in wanted and _same(mark, jobs)]
    live = folder is None and systemd.running()
    if live:
        for mark in gone:
            systemd.tell("disable", "--now", f"{mark.name}.timer", user=user)
    removed = systemd.remove(at, gone)
    written = systemd.install(at, jobs)
    for path in [*removed, *written]:
        invocation.output.say(f"{'removed' if path in removed else 'written'}: {path}")
    if live:
        for words in (("daemon-reload",), ("enable", "--now", *(f"{job.mark.name}.timer" for job in jobs))):
            if wrong := systemd.tell(*words, user=user):
                raise UsageError(f"systemctl {words[0]} failed: {wrong}", remedy="the units are written; enable them")
        if user:
            invocation.output.say("they end with your last session, unless `loginctl enable-linger` keeps them")
    else:
        invocation.output.say("enable them with `systemctl enable --now` where systemd runs")
    return [str(path) for path in written]


def _cron(invocation: Invocation, jobs: Sequence[Job], *, show: bool) -> list[str]:
    from pipeline.schedule import cron

    if show:
        for job in jobs:
            invocation.output.say(*cron.lines(job))
        return []
    table = cron.read()
    gone = [mark for mark, _ in cron.entries(table) if _same(mark, jobs)]
    changed = cron.installed(table, jobs, gone)
    if changed != table:
        cron.write(changed)
    for job in jobs:
        invocation.output.say(f"in the crontab: {job.mark.job} at {job.calendar}")
    return [cron.lines(job)[1] for job in jobs] if changed != table else []


def _same(mark: Mark, jobs: Sequence[Job]) -> bool:
    """Whether it is of the same plan."""
    return mark.fits(jobs[0].mark.repository, jobs[0].mark.plan)
