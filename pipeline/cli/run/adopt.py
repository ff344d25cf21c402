"""`failback run adopt`: a new controller takes over a run from the repository alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conduct import RunArgument
from pipeline.cli.run.conducting import AttendOption, WaitOption, conducted

if TYPE_CHECKING:
    from pipeline.plans.stored import Stored
    from pipeline.repository import Repository
    from pipeline.runs.fold import RunState


@command
def adopt(invocation: Invocation, run: RunArgument, wait: WaitOption = True, attend: AttendOption = False) -> Ending:
    """Take over a run whose host is lost, from one that knows nothing but the repository: say what the repository and
    both platforms show, then conduct it."""
    from pipeline.runs.begin import find_run

    repository = invocation.open_repository()
    state, stored = find_run(repository, run)
    found = _found(invocation, repository, state, stored)
    invocation.output.say(*found, "")
    ending = conducted(invocation, state.run, stored, wait=wait, attend=attend)
    ending.values["found"] = found
    return ending


def _found(invocation: Invocation, repository: Repository, state: RunState, stored: Stored) -> list[str]:
    """What is known before anything is done. Asks both platforms, and changes nothing."""
    from pipeline.cli.grounds import ground_of
    from pipeline.errors import FailbackError
    from pipeline.home.control import Controller
    from pipeline.home.site import open_site
    from pipeline.runs.crew import source_of
    from pipeline.runs.ownership import current
    from pipeline.runs.report import headline
    from pipeline.runs.status import status_of

    control = Controller(tell=invocation.note)
    ground = ground_of(invocation, stored.plan.mapping, repository=repository, control=control)
    status = status_of(repository, state)
    who = f"process {state.process.get('pid')} on {state.process.get('host')}" if state.conductor else "nobody"
    seen = f", last seen {status.at:%Y-%m-%d %H:%M:%S} UTC" if status else ""
    found = [
        f"run {state.run} of {state.plan}@{state.version}: {headline(state)}, after entry {state.number}",
        f"conducted before by {who}{seen}",
    ]
    source = source_of(ground, stored.plan, control)
    try:
        for name, machine in stored.plan.machines.items():
            epoch = current(repository, name)
            try:
                there = source.observe(name, machine.source)
                away = there.power + (", locked" if there.locked else "")
            except FailbackError as error:
                away = f"not known ({error.message})"
            try:
                with open_site(ground, stored.plan.target, name, "import") as site:
                    place = site.find()
                home = str(place.state) if place is not None else "nothing is there"
            except FailbackError as error:
                home = f"not known ({error.message})"
            found.append(
                f"{name}: {epoch.side} (epoch {epoch.number}); takeover site: {away}; {stored.plan.target}: {home}"
            )
    finally:
        source.close()
    torn = [effect for effect, e in state.effects.items() if e.began and not e.done and not e.failed]
    if torn:
        found.append(f"begun and not known to have ended, so done again: {', '.join(torn)}")
    return found
