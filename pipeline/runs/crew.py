"""What a conductor works with, from a plan: its source, what both sides can do, and its conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pipeline.errors import FailbackError, UsageError
from pipeline.home.control import Controller
from pipeline.home.site import Ground, open_site
from pipeline.plans.agree import condition_of
from pipeline.plans.condition import Answer, World
from pipeline.plans.model import Condition, Plan
from pipeline.progress import Watch, ignore
from pipeline.runs.fold import RunState
from pipeline.runs.line import Abilities
from pipeline.source import Source, SourceContext
from pipeline.sources.registry import open_source
from pipeline.target import Journal, marker_of

WAITING = "waiting: "
"""What is seen of a condition begins so when it does not hold."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of one look at conditions: by name what was seen, and whether all hold."""

    seen: dict[str, str]
    holds: bool
    expired: str = ""
    """The name of one that was waited for longer than it may take."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What a conductor works with."""

    ground: Ground
    plan: Plan
    source: Source
    abilities: Abilities
    look: Callable[[RunState, datetime, str], Answers]
    """At the conditions of the beginning, or of a group's cutover."""
    source_control: Controller = field(default_factory=Controller)
    """The one that the source was made with."""
    watch: Callable[[str], Watch] = field(default=lambda _effect: ignore)
    tell: Callable[[str, str], None] = field(default=lambda _effect, _text: None)
    """(effect, line for people); effect empty: about the run."""
    pause: Callable[[float], None] = time.sleep


def source_of(ground: Ground, plan: Plan, control: Controller, *, run: str = "") -> Source:
    """The plan's. Its notes lie beside those about places at targets."""
    kind, places = plan.source.kind, ground.places

    def journal(machine: str) -> Journal:
        return places.of(f"source-{kind}", marker_of(ground.repository.document.id, "source", machine))

    state = ground.state / "sources" / kind
    return open_source(kind, SourceContext(state, control, journal, options=plan.source.options, run=run))


def crew_of(
    ground: Ground,
    plan: Plan,
    source: Source,
    control: Controller,
    *,
    watch: Callable[[str], Watch] = lambda _effect: ignore,
    tell: Callable[[str, str], None] = lambda _effect, _text: None,
) -> Crew:
    """`control` is the one the source was made with."""
    first = next(iter(plan.machines))
    with open_site(ground, plan.target, first, "import") as site:
        home = site.abilities
    if not home.machines:
        raise UsageError(f"{plan.target} has disks and no machines: nothing can be cut over there")
    able = {name: source.able(name, machine.source) for name, machine in plan.machines.items()}
    abilities = Abilities(
        unread=frozenset(name for name, can in able.items() if not can.reads),
        restless=frozenset(name for name, can in able.items() if can.quiesce == "none"),
    )

    def look(state: RunState, now: datetime, group: str) -> Answers:
        return _looked(ground, plan, source, state, now, group)

    return Crew(ground, plan, source, abilities, look, source_control=control, watch=watch, tell=tell)


def waited_since(state: RunState, group: str, now: datetime) -> datetime:
    """Since when the conditions of the beginning, or of a group's cutover, are waited for."""
    return state.awaited.get(group, now) if group else state.started or now


def _looked(ground: Ground, plan: Plan, source: Source, state: RunState, now: datetime, group: str) -> Answers:
    waited = now - waited_since(state, group, now)
    seen, holds, expired, began = dict[str, str](), True, "", _boottime()
    with ExitStack() as stack:
        world = World(
            repository=ground.repository,
            plan=plan,
            now=now,
            source=lambda: source,
            site=lambda machine: stack.enter_context(open_site(ground, plan.target, machine, "import")),
            state=ground.state,
            run=state.run,
            flags=frozenset(state.flags),
        )
        # What looks at the clock comes last: others may take their time.
        asked = plan.conditions_at("cutover" if group else "start")
        for condition in sorted(asked, key=lambda condition: condition.kind == "window"):
            passed = timedelta(seconds=_boottime() - began)
            answer = _answer(condition, replace(world, now=now + passed))
            seen[condition.name] = ("holds: " if answer.holds else WAITING) + answer.seen
            if not answer.holds:
                holds = False
                if condition.within is not None and waited > timedelta(seconds=condition.within):
                    expired = expired or condition.name
    return Answers(seen, holds, expired)


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _answer(condition: Condition, world: World) -> Answer:
    """What cannot be known now does not hold now. Raises UsageError for what can never hold."""
    look = condition_of(condition)
    try:
        return look.look(world)
    except UsageError:
        raise
    except FailbackError as error:
        return Answer(False, error.message)
