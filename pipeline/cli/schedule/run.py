"""`failback schedule run`: what timers and crontab lines call."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.schedule.where import results_folder
from pipeline.errors import ConductedElsewhere, FailbackError, UsageError

if TYPE_CHECKING:
    from pipeline.plans.stored import Stored

ALONE = ("scrub", "gc")
"""Jobs of the repository: one at a time, whatever plan they are of."""


@command
def run(
    invocation: Invocation,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Its name; the newest version counts.")],
    job: Annotated[str, typer.Argument(metavar="JOB", help="export, conditions, scrub, gc or rehearse.")],
) -> Ending:
    """Do one job of a plan now. While the last call of the same job still works it is passed over. With --json --quiet
    it prints one line. Exit codes are those of what is done; 16: conditions are waited for."""
    from pipeline.catalogue import now
    from pipeline.plans.parse import parse_plan
    from pipeline.plans.stored import parse_version, read
    from pipeline.schedule.job import KINDS, Mark
    from pipeline.schedule.lock import alone, keep_last

    if job not in KINDS:
        raise UsageError(f"{job!r} is no job", remedy=f"there are {', '.join(KINDS)}")
    name, _ = parse_version(plan)
    repository = invocation.open_repository()
    stored = read(repository, name)
    parse_plan(stored.document, where=stored.label)
    mark = Mark(repository.document.id, name, job)
    folder, about = results_folder(invocation), {"plan": stored.label, "job": job}
    lock = f"failback-{job}-{mark.repository[:8]}" if job in ALONE else mark.name
    with alone(folder, lock) as other:
        if other:
            invocation.output.say(f"{job} of {name} still works: {other}")
            return Ending(values={**about, "ran": False, "why": f"the last one still works: {other}"})
        try:
            ending = _done(invocation, stored, job)
        except FailbackError as error:
            keep_last(folder, mark.name, {"time": now(), "exit_code": error.exit_code, "error": error.message})
            raise
        keep_last(folder, mark.name, {"time": now(), "exit_code": ending.code, **ending.values})
    return Ending(ending.code, {**about, "ran": True, **ending.values})


def _done(invocation: Invocation, stored: Stored, job: str) -> Ending:
    if job == "export":
        return _export(invocation, stored)
    if job == "conditions":
        return _conditions(invocation, stored)
    if job == "rehearse" and (moved := _moved(invocation, stored)):
        invocation.output.say(f"nothing is rehearsed: {moved}")
        return Ending(values={"skipped": moved})
    words = {"scrub": ("scrub",), "gc": ("gc", "--apply"), "rehearse": ("rehearse", stored.plan.name, "--no-wait")}[job]
    return _called(invocation, *words)


def _moved(invocation: Invocation, stored: Stored) -> str:
    """The first machine that is not the takeover side's any more; empty: all are."""
    from pipeline.runs.ownership import current

    repository = invocation.open_repository()
    epochs = (current(repository, machine) for machine in stored.plan.machines)
    return next((f"{e.machine} is {e.side}, by run {e.run}" for e in epochs if e.side != "takeover"), "")


def _export(invocation: Invocation, stored: Stored) -> Ending:
    from pipeline.cli.plan.world import sourced
    from pipeline.schedule.export import export_all

    code, machines = exitcodes.OK, dict[str, Any]()
    with sourced(invocation, stored.plan) as (ground, source):
        for done in export_all(ground, stored.plan, source):
            machines[done.machine] = {"point": done.point or None, "skipped": done.skipped or None}
            if done.error is not None:
                code = code or done.error.exit_code
                machines[done.machine] |= {"error": done.error.message, "remedy": done.error.remedy}
                invocation.failed_quietly(f"{done.machine}: {done.error.message}")
            said = done.point or done.skipped or (done.error.message if done.error else "")
            invocation.output.say(f"{done.machine}: {said}")
    return Ending(code, {"machines": machines})


def _conditions(invocation: Invocation, stored: Stored) -> Ending:
    from pipeline.cli.plan.world import opened
    from pipeline.cli.run.conducting import conducted
    from pipeline.plans.stored import read
    from pipeline.runs.begin import begin, find_run
    from pipeline.schedule.conditions import Over, earlier, waiting

    repository = invocation.open_repository()
    before = earlier(repository, stored)
    if isinstance(before, Over):
        invocation.output.say(f"run {before.run} of {stored.label} is over: {before.outcome}")
        return Ending(values={"run": before.run, "outcome": before.outcome})
    if before is None:
        with opened(invocation, stored.plan) as world:
            left = waiting(world)
        if left:
            for name, seen in left.items():
                invocation.output.say(f"waiting for {name}: {seen}")
            return Ending(exitcodes.RUN_WAITS, {"waiting": left})
        run = begin(repository, stored).run
    else:
        run = before
        state, _ = find_run(repository, run)
        stored = read(repository, stored.plan.name, state.version)
    try:
        return conducted(invocation, run, stored, wait=False, attend=False)
    except ConductedElsewhere as refused:
        invocation.output.say(f"{refused.message}: it goes on there")
        return Ending(values={"run": run, "conducted": refused.message})


def _called(invocation: Invocation, *words: str) -> Ending:
    """Another command of ours, in a process of its own; its result is ours."""
    from pipeline.store.address import parse_address

    address = str(parse_address(invocation.address))
    command_line = [sys.executable, "-m", "pipeline.cli.main", "--repository", address, "--json", "--quiet", *words]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    result: dict[str, Any] = {}
    for line in output.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("type") == "result":
            result = {key: value for key, value in found.items() if key not in ("type", "ok", "exit_code")}
    invocation.output.say(f"{' '.join(words)} ended with {process.returncode}")
    return Ending(process.returncode, {"result": result})
