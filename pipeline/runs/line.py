"""The line of a run: all its items in their order, behind and before us.

It follows from the plan and from what people decided: a group that is taken back has the line of its undoing, and a
machine that stays at the takeover site (a split) has its undoing before the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.plans.model import Group, Plan
from pipeline.runs.fold import RunState


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the plan's source cannot do, as far as it changes the order of things."""

    unread: frozenset[str] = frozenset()
    """Machines that something else exports."""
    restless: frozenset[str] = frozenset()
    """Machines that cannot be quiesced: they are stopped before their last point is taken."""


@dataclass(frozen=True, slots=True)
class Effects:
    """All of them, side by side."""

    names: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Those of the beginning, or of a group's cutover."""

    group: str = ""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Disks at home that have fallen behind follow once more, so that little is left for the downtime. It stands before
    the conditions of the cutover: some of them ask for it, and what failed is told while they are waited for."""

    group: str
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approval:
    what: str
    group: str


@dataclass(frozen=True, slots=True)
class Soak:
    """The gate is open; it is looked on until the plan commits by itself."""

    group: str


Item = Effects | Conditions | CatchUp | Approval | Soak
READY = ("preflight", "export", "stage", "rehearse", "catchup")
"""Verbs before anything at the takeover site is touched but by reading."""
UNDONE_BY: dict[str, tuple[str, ...]] = {
    "close": ("open",),
    "halt": ("own", "boot"),
    "return": ("claim",),
    "restart": ("claim", "quiesce", "stop", "lock"),
}
"""Each verb of the way back, and which of the way forth call for it."""


def line(state: RunState, plan: Plan, abilities: Abilities) -> Iterator[Item]:
    """The whole of it, behind and before us."""
    if state.purpose == "cutover":
        yield Conditions()
    yield from _ready(state, plan, abilities)
    if state.purpose == "rehearsal" or plan.rehearsal.before_cutover:
        for group in plan.groups:
            yield Effects((f"rehearse/{group.name}",), group.name)
    if state.purpose == "rehearsal":
        return
    for group in ordered(plan):
        if group.name in state.back:
            yield from _back(state, group, group.machines)
        elif group.name not in left_out(state, plan):
            yield from _forth(state, plan, group, abilities)


def left_out(state: RunState, plan: Plan) -> set[str]:
    """Groups that come after one that was taken back: they are not begun."""
    out: set[str] = set()
    for group in ordered(plan):
        if group.name not in state.back and set(group.after) & (out | state.back.keys()):
            out.add(group.name)
    return out


def ordered(plan: Plan) -> list[Group]:
    """Groups so that each comes after those it names."""
    done: list[Group] = []
    while len(done) < len(plan.groups):
        behind = {group.name for group in done}
        ready = [g for g in plan.groups if g.name not in behind and set(g.after) <= behind]
        done += ready[:1] or [g for g in plan.groups if g.name not in behind]
    return done


def _ready(state: RunState, plan: Plan, abilities: Abilities) -> Iterator[Item]:
    """A rehearsal takes the points that are there, and asks nothing of the takeover side."""
    machines = [machine for group in plan.groups for machine in group.machines]
    if state.purpose == "cutover":
        yield _each("preflight", machines)
        yield _each("export", [m for m in machines if m not in abilities.unread])
    yield _each("stage", machines)


def _forth(state: RunState, plan: Plan, group: Group, abilities: Abilities) -> Iterator[Item]:
    name = group.name
    going = [m for m in group.machines if m not in state.stay]
    waves = [[m for m in wave if m not in state.stay] for wave in group.waves]
    if plan.approvals.cutover:
        yield Approval(f"cutover/{name}", name)
    yield CatchUp(name, tuple(going))
    if plan.conditions_at("cutover"):
        yield Conditions(name)
    yield _each("claim", going, name)
    still = [[m for m in wave if m not in abilities.restless] for wave in waves]
    for wave, quiet in zip(reversed(waves), reversed(still), strict=True):
        yield _each("quiesce", quiet, name)
        yield from _off([m for m in wave if m not in quiet], name)
    yield _each("final", going, name)
    for quiet in reversed(still):
        yield from _off(quiet, name)
    yield Effects((f"set/{name}",), name)
    yield _each("refresh", going, name)
    if state.stay:
        yield from _back(state, group, [m for m in group.machines if m in state.stay])
    for wave in waves:
        yield _each("own", wave, name)
        yield _each("boot", wave, name)
        yield _each("verify", wave, name)
    yield _each("clock", going, name)
    if plan.approvals.gate:
        yield Approval(f"gate/{name}", name)
    for step in group.traffic:
        yield Effects((f"open/{name}/{step.name}",), name)
    yield Approval(f"commit/{name}", name) if plan.approvals.commit else Soak(name)
    yield _each("commit", going, name)
    yield _each("retire", going, name)


def _off(machines: list[str], name: str) -> Iterator[Item]:
    for verb in ("stop", "prove", "lock"):
        yield _each(verb, machines, name)


def _back(state: RunState, group: Group, machines: list[str] | tuple[str, ...]) -> Iterator[Item]:
    """Home is off and gone before the takeover side starts again; what was never begun needs no undoing."""
    name = group.name
    waves = [[m for m in wave if m in machines] for wave in group.waves]
    if name in state.back:
        for step in reversed(group.traffic):
            if state.began(f"open/{name}/{step.name}"):
                yield Effects((f"close/{name}/{step.name}",), name)
    for wave in reversed(waves):
        yield _each("halt", _touched(state, "halt", wave), name)
    yield _each("return", _touched(state, "return", machines), name)
    for wave in waves:
        yield _each("restart", _touched(state, "restart", wave), name)


def _touched(state: RunState, verb: str, machines: list[str] | tuple[str, ...]) -> list[str]:
    return [m for m in machines if any(state.began(f"{before}/{m}") for before in UNDONE_BY[verb])]


def _each(verb: str, machines: list[str], group: str = "") -> Effects:
    return Effects(tuple(f"{verb}/{machine}" for machine in machines), group)


def plan_group(plan: Plan, name: str) -> Group:
    return next(group for group in plan.groups if group.name == name)
