"""A command that conducts a run: until it is over, or waits for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation

if TYPE_CHECKING:
    from pipeline.plans.stored import Stored
    from pipeline.runs.decide import Next
    from pipeline.runs.fold import RunState

WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for conditions and for time; else look once and end (for cron).")
]
AttendOption = Annotated[
    bool, typer.Option("--attend", help="Stay when a person is asked, and go on when somebody has decided elsewhere.")
]
GRACE_SECONDS = 30.0


def conducted(invocation: Invocation, run: str, stored: Stored, *, wait: bool, attend: bool) -> Ending:
    """Conduct `run` from here. Raises what the conductor raises."""
    from pipeline.cli.grounds import ground_of
    from pipeline.cli.progress import shown
    from pipeline.home.control import Controller
    from pipeline.runs.conductor import Conductor
    from pipeline.runs.crew import crew_of, source_of
    from pipeline.runs.written import written_at_home

    invocation.grace_seconds = GRACE_SECONDS
    invocation.how_to_go_on = lambda: f"`failback run conduct {run}` goes on from here or from any other host"

    def tell(effect: str, text: str) -> None:
        invocation.note(f"{effect}: {text}" if effect else text)

    with shown(invocation.output) as meter:
        control = Controller(watch=meter, tell=invocation.note)
        ground = ground_of(invocation, stored.plan.mapping, watch=meter)
        source = source_of(ground, stored.plan, control, run=run)
        try:
            crew = crew_of(ground, stored.plan, source, control, watch=lambda _effect: meter, tell=tell)
            conductor = Conductor(crew, run)
            waits = None if wait else conductor.only_waits()
            coming = waits or conductor.conduct(wait=wait, attend=attend)
        finally:
            source.close()
    written = written_at_home(ground, conductor.state, stored.plan)
    return ending(invocation, conductor.state, stored, coming, conductor.seen, written)


def ending(
    invocation: Invocation, state: RunState, stored: Stored, coming: Next, seen: dict[str, str], written: dict[str, int]
) -> Ending:
    """What is printed, and the exit code that a cron job can act on. `seen`: of conditions that are waited for."""
    from pipeline.runs.report import document, lines

    invocation.output.say(*lines(state, stored.plan, coming, written))
    if state.waits:
        invocation.output.say(*(f"    {name}: {answer}" for name, answer in seen.items()))
    return Ending(code_of(coming), {**document(state, stored.plan, coming, written), "conditions": seen})


def written_here(invocation: Invocation, state: RunState, stored: Stored) -> dict[str, int]:
    """See `written_at_home`; as far as this host reaches the target."""
    from pipeline.cli.grounds import ground_of
    from pipeline.runs.written import at_stake, written_at_home

    if not at_stake(state, stored.plan):
        return {}
    return written_at_home(ground_of(invocation, stored.plan.mapping), state, stored.plan)


def code_of(coming: Next) -> int:
    from pipeline.runs.decide import Ask, Hold, Over, Paused

    match coming:
        case Over(outcome="committed" | "rehearsed"):
            return exitcodes.OK
        case Over():
            return exitcodes.RUN_UNDONE
        case Ask() | Hold() | Paused():
            return exitcodes.RUN_ASKS
    return exitcodes.RUN_WAITS
