"""Is it time to start a run of a plan? Asked again and again by the clock."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import FailbackError, UsageError
from pipeline.plans.agree import condition_of
from pipeline.plans.condition import World
from pipeline.plans.stored import Stored
from pipeline.repository import Repository
from pipeline.runs.begin import runs


@dataclass(frozen=True, slots=True)
class Over:
    """This version of the plan was run: it is not run again by the clock, however that ended."""

    run: str
    outcome: str


def earlier(repository: Repository, stored: Stored) -> Over | str | None:
    """The name of a run of this plan that is not over; how one of this version ended; None when there is neither."""
    over = None
    for state in runs(repository, stored.plan.name):
        if state.purpose != "cutover":
            continue
        if state.outcome is None:
            return state.run
        if state.version == stored.version:
            over = Over(state.run, state.outcome)
    return over


def waiting(world: World) -> dict[str, str]:
    """By name, what was seen of conditions that do not hold now; those that a run waits for later, and those that only
    a run can meet, are left to it. Raises UsageError for what can never hold."""
    found = {}
    for condition in world.plan.conditions_at("start"):
        kind = condition_of(condition)
        if kind.of_run:
            continue
        try:
            answer = kind.look(world)
        except UsageError:
            raise
        except FailbackError as error:
            found[condition.name] = error.message
            continue
        if not answer.holds:
            found[condition.name] = answer.seen
    return found
