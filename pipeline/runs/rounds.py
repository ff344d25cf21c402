"""Rounds by which disks at home follow a machine that still works at the takeover site, and whether one more is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.plans.model import Plan
from pipeline.runs.fold import RunState
from pipeline.runs.line import plan_group

MET_SECONDS = 60.0
"""So long conditions of a cutover that held are good for beginning it."""
WAITING_ROUNDS = 4
"""Disks follow so many times less often while a cutover waits for its conditions: each round is a point more."""


def fell_behind(state: RunState, plan: Plan, group: str, machines: tuple[str, ...], last: int, now: datetime) -> bool:
    """Whether one more round brings the disks at home nearer than the last one left them."""
    if plan.limits.catch_up is None or not machines:
        return False
    if group in state.met_at_once and met_now(state, plan, group, now):
        return False  # however long it took to look at them
    limit = timedelta(seconds=plan.limits.catch_up)
    rounds = [_round(state, machines, number, limit) for number in range(max(0, last - 1), last + 1)]
    newest = rounds[-1]
    if now - newest.ended > limit * (WAITING_ROUNDS if group == state.awaiting else 1):
        return True
    if newest.took <= limit:
        return False
    again = newest.interrupted and (last == 1 or not rounds[0].interrupted)
    return last == 0 or newest.took * 2 < rounds[0].took or again


@dataclass(frozen=True, slots=True)
class _Round:
    ended: datetime
    took: timedelta
    interrupted: bool
    """Some of its machines are as it left them, others as it found them much later."""


def _round(state: RunState, machines: tuple[str, ...], number: int, limit: timedelta) -> _Round:
    """Of the exports and stages at the beginning (0), or a later one."""
    first = [f"catchup/{m}/{number}" if number else f"export/{m}" for m in machines]
    last = first if number else [f"stage/{m}" for m in machines]
    effects = [state.effect(name) for name in dict.fromkeys((*first, *last))]
    times = sorted((e.since, e.ended) for e in effects if e.since is not None and e.ended is not None)
    ended, interrupted = times[0][1], any(e.attempts > 1 for e in effects)
    for since, end in times:
        interrupted = interrupted or since - ended > limit
        ended = max(ended, end)
    return _Round(ended, ended - times[0][0], interrupted)


def met_now(state: RunState, plan: Plan, group: str, now: datetime) -> bool:
    """The conditions of its cutover held just now, and nothing that takes time was done since."""
    met = state.met_before.get(group)
    if met is None or now - met > timedelta(seconds=MET_SECONDS):
        return False
    rounds = [effect for m in plan_group(plan, group).machines for effect in state.catch_ups(m)]
    return all(effect.ended is None or effect.ended <= met for effect in rounds)
