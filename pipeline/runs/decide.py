"""What comes next: a function of the journal, the plan and the store's time. It changes nothing and asks nobody.

A run is a line of items (`pipeline.runs.line`), and what comes next is the first that is not behind it.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.plans.model import Group, Plan
from pipeline.runs.entries import Outcome
from pipeline.runs.fold import Answer, RunState
from pipeline.runs.line import (
    READY,
    UNDONE_BY,
    Abilities,
    Approval,
    CatchUp,
    Conditions,
    Effects,
    Soak,
    left_out,
    line,
    plan_group,
)
from pipeline.runs.rounds import fell_behind, met_now

RED = 3
"""Looks in a row that found something wrong while the gate is open, after which a person is called."""
PERSONAL = ("source-lost", "foreign-change", "clock-suspect")
"""Words for what went wrong that no plan decides about: a person is called, whatever it says."""


@dataclass(frozen=True, slots=True)
class Do:
    """Effects that may go on side by side."""

    effects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """The conditions are to be looked at, and waited for: those of the beginning, or of a group's cutover."""

    group: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A person's answer is wanted. `fresh`: the question was not put yet, or an answer to it is good no more."""

    what: str
    binding: str
    shown: dict[str, Any]
    fresh: bool
    state: str = "approval"


@dataclass(frozen=True, slots=True)
class Wait:
    """Until `until` at most; for nobody but time."""

    state: str
    reason: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """A person has to look. `journaled`: it stands in the journal already."""

    state: str
    reason: str
    remedy: str
    journaled: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """The group is to be taken back: the plan says so."""

    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Over:
    """The run has ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Paused:
    by: str


Next = Do | Look | Ask | Wait | Hold | Turn | Finish | Over | Paused


def decide(state: RunState, plan: Plan, abilities: Abilities, now: datetime, *, suspect: str = "") -> Next:
    """`now` is the store's time; `suspect` says what is wrong with it: no timer acts by it then."""
    suspect = "" if "clock-suspect" in state.accepted else suspect
    if state.outcome is not None:
        return Over(state.outcome)
    if state.paused:
        return Paused(state.paused)
    if state.cancelled and not touched(state):
        return Finish("cancelled")
    if state.stand is not None:
        return Hold(state.stand.state, state.stand.reason, state.stand.remedy or choices(state), journaled=True)
    for item in line(state, plan, abilities):
        group = getattr(item, "group", "")
        if group and not suspect and (late := _late(state, plan, group, now)) is not None:
            return late
        match item:
            case Conditions(group=""):
                if state.met is None:
                    return Look()
            case Conditions(group=name):
                if (awaited := _awaited(state, plan, name, now, suspect)) is not None:
                    return awaited
            case CatchUp(machines=machines):
                if (behind := _catching_up(state, plan, group, machines, None if suspect else now)) is not None:
                    return behind
            case Effects(names=names):
                if any(state.effect(name).failed for name in names):
                    return _failed(state, plan, names, group)
                if todo := tuple(name for name in names if not state.done(name)):
                    judged = _withdrawn(state, plan, group, None if suspect else now) if group else None
                    return judged or Do(todo)
            case Approval(what=what):
                asked = _asked(state, plan, what, group, now)
                if asked is not None and not (suspect and _by_time(asked)):
                    return asked
                if suspect and not _begun_under(state, plan, what, group):
                    return Hold("clock-suspect", suspect, _choices(state, plan, group), journaled=False)
            case Soak():
                if suspect:
                    return Hold("clock-suspect", suspect, _choices(state, plan, group), journaled=False)
                if (soaking := _soaking(state, plan, group, now)) is not None:
                    return soaking
    if state.purpose == "rehearsal":
        return Finish("rehearsed")
    home = [g for g in plan.groups if g.name not in state.back and g.name not in left_out(state, plan)]
    if not home:
        return Finish("rolled back")
    return Finish("committed" if len(home) == len(plan.groups) and not state.stay else "partly committed")


def _down(state: RunState, plan: Plan, group: str) -> bool:
    """Its downtime has begun: that is ended, whatever holds. A claim stops nothing."""
    return any(state.began(f"{verb}/{m}") for verb in ("quiesce", "stop") for m in plan_group(plan, group).machines)


def _awaited(state: RunState, plan: Plan, group: str, now: datetime, suspect: str) -> Next | None:
    """None: the conditions of its cutover hold, or its downtime has begun."""
    if _down(state, plan, group) or met_now(state, plan, group, now):
        return None
    if judged := _withdrawn(state, plan, group, None if suspect else now):
        return judged
    if suspect:
        return Hold("clock-suspect", suspect, giving_up(state, plan, group), journaled=False)
    return Look(group)


def _catching_up(
    state: RunState, plan: Plan, group: str, machines: tuple[str, ...], now: datetime | None
) -> Next | None:
    """None: their disks at home are near enough. A round that was begun is ended, also where no clock is believed."""
    if _down(state, plan, group):
        return None
    last = max((len(state.catch_ups(m)) for m in machines), default=0)
    names = tuple(f"catchup/{m}/{last}" for m in machines) if last else ()
    if any(state.effect(name).failed for name in names):
        return _failed(state, plan, names, group)
    todo = tuple(name for name in names if not state.done(name))
    if not todo and now is not None and fell_behind(state, plan, group, machines, last, now):
        todo = tuple(f"catchup/{m}/{last + 1}" for m in machines)
    return (_withdrawn(state, plan, group, now) or Do(todo)) if todo else None


def giving_up(state: RunState, plan: Plan, group: str) -> str:
    """The command that gives up what waits: the cutover of a group that was not begun, or all of the run."""
    return way_back(state, plan, group) if touched(state) else f"`failback run cancel {state.run}`"


def touched(state: RunState) -> bool:
    """Anything at the takeover site may be other than it was."""
    return any(name.split("/")[0] in ("claim", *UNDONE_BY["restart"]) for name, e in state.effects.items() if e.began)


def gate_opened(state: RunState, group: Group) -> datetime | None:
    """When users may have come in first: when the first step was begun, or, where there is none, when all machines of
    the group had been verified."""
    begun = [state.effect(f"open/{group.name}/{step.name}").since for step in group.traffic]
    if group.traffic:
        return min((time for time in begun if time is not None), default=None)
    ends = [state.effect(f"verify/{m}").ended for m in group.machines if m not in state.stay]
    done = all(state.done(f"verify/{m}") for m in group.machines if m not in state.stay)
    return max((e for e in ends if e is not None), default=None) if done else None


def _open_since(state: RunState, group: Group) -> datetime | None:
    """When all of the gate was open: a step may have been tried for long."""
    ends = [state.effect(f"open/{group.name}/{step.name}").ended for step in group.traffic]
    return max((end for end in ends if end is not None), default=gate_opened(state, group))


def looked_since(state: RunState, plan: Plan, machine: str) -> int | None:
    """The entry from which on a person's word about a machine is one about what is looked at now; None: nobody looks.

    What was said when a machine was verified holds for the looks while its gate is open, until somebody says other.
    """
    name = plan.group_of(machine).name
    verified = state.effect(f"verify/{machine}")
    looks = [state.effect(f"rehearse/{name}"), verified]
    if going_on := [effect.open for effect in looks if effect.open]:
        return max(going_on)
    if any(e.open for n, e in state.effects.items() if n.startswith(f"green/{name}/")):
        return verified.began_at
    return None


def binding_of(state: RunState, plan: Plan, what: str, group: str) -> tuple[str, dict[str, Any]]:
    """(what an approval is good for, the same for people): the plan's version, the set and the targets."""
    machines = [m for m in plan_group(plan, group).machines if m not in state.stay]
    points = {
        m: state.effect(f"final/{m}").result.get("point") or state.effect(f"stage/{m}").result.get("point")
        for m in machines
    }
    places = {m: state.effect(f"stage/{m}").result.get("place") for m in machines}
    shown = {
        "what": what, "plan": f"{plan.name}@{state.version}", "target": plan.target, "points": points,
        "places": places, "stay": sorted(state.stay),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:32], shown


def _asked(state: RunState, plan: Plan, what: str, group: str, now: datetime) -> Next | None:
    """None: there is a good answer, or what it is about has begun under one."""
    if _begun_under(state, plan, what, group):
        return None
    binding, shown = binding_of(state, plan, what, group)
    question, answer = state.questions.get(what), state.answers.get(what)
    if question is None or question.binding != binding:
        return Ask(what, binding, shown, fresh=True)
    if answer is None or answer.binding != binding:
        return Ask(what, binding, shown, fresh=False)
    if not answer.yes:
        reason = _no(answer)
        if what.startswith("cutover/"):
            return Hold("rejected", reason, f"{giving_up(state, plan, group)}, or approve it after all", False)
        return Turn(group, reason) if what.startswith("gate/") else _refused(state, plan, group, reason)
    if now - answer.time > timedelta(seconds=plan.approvals.valid):
        if what.startswith("cutover/"):
            return Ask(what, binding, shown, fresh=question.time <= answer.time, state="approval-expired")
        return _stale(state, plan, group, answer.by)
    return None


def _begun_under(state: RunState, plan: Plan, what: str, group: str) -> bool:
    """What an approval is about has begun: whether it still is good is no question any more, but for `_withdrawn`."""
    verbs = {"cutover": "claim", "gate": "open", "commit": "commit"}
    verb = verbs[what.partition("/")[0]]
    if verb == "open":
        return any(state.began(f"open/{group}/{step.name}") for step in plan_group(plan, group).traffic)
    return any(state.began(f"{verb}/{m}") for m in plan_group(plan, group).machines)


def _by_time(coming: Next) -> bool:
    return isinstance(coming, Ask | Hold) and coming.state == "approval-expired"


def settled(state: RunState, plan: Plan, what: str) -> bool:
    """An answer to this question changes nothing any more: what it is about is done, or its group goes back."""
    verb, _, group = what.partition("/")
    if group in state.back:
        return True
    if verb == "cutover":
        return any(state.began(f"own/{m}") for m in plan_group(plan, group).machines)
    if verb == "gate" and not plan_group(plan, group).traffic:  # nothing was opened by it
        return f"commit/{group}" in state.questions or any(n.startswith(f"green/{group}/") for n in state.effects)
    return _begun_under(state, plan, what, group)


def _withdrawn(state: RunState, plan: Plan, group: str, now: datetime | None) -> Next | None:
    """Between the first machine that was quiesced and the first that starts at home: whether the approval still is
    good, or somebody said no after all. What has been started is finished. `now` None: no clock is to be believed."""
    answer = state.answers.get(f"cutover/{group}")
    if answer is None or settled(state, plan, f"cutover/{group}"):
        return None
    if not any(state.began(f"claim/{m}") for m in plan_group(plan, group).machines):
        return None
    if not answer.yes:
        return _refused(state, plan, group, _no(answer))
    old = now is not None and now - answer.time > timedelta(seconds=plan.approvals.valid)
    return _stale(state, plan, group, answer.by) if old else None


def _stale(state: RunState, plan: Plan, group: str, who: str) -> Hold:
    remedy = f"`failback run approve {state.run}` or {way_back(state, plan, group)}"
    return Hold("approval-expired", f"the approval of {who} is too old", remedy, journaled=False)


def _no(answer: Answer) -> str:
    return f"{answer.by} said no" + (f": {answer.reason}" if answer.reason else "")


def _refused(state: RunState, plan: Plan, group: str, reason: str) -> Hold:
    remedy = f"{way_back(state, plan, group)}, or approve it after all"
    return Hold("rejected", reason, remedy, journaled=False)


def way_back(state: RunState, plan: Plan, group: str) -> str:
    """The command that takes this group back now."""
    which = f" --group {shlex.quote(group)}" if len(plan.groups) > 1 else ""
    opened = gate_opened(state, plan_group(plan, group)) is not None
    return f"`failback run rollback {state.run}{which}{' --discard' if opened else ''}`"


def _late(state: RunState, plan: Plan, group: str, now: datetime) -> Next | None:
    """Whether the downtime is longer than allowed: before the gate opens only."""
    allowed, which = plan.deadlines.downtime, plan_group(plan, group)
    if allowed is None or "late" in state.accepted or group in state.back or gate_opened(state, which) is not None:
        return None
    begun = [t for m in which.machines for v in ("quiesce", "stop") if (t := state.effect(f"{v}/{m}").since)]
    if not begun or now - min(begun) - state.frozen(min(begun)) <= timedelta(seconds=allowed):
        return None
    reason = f"{group} has been down since {min(begun):%H:%M:%S}, longer than {allowed:.0f} s"
    if plan.on_failure == "rollback" and not given_up(state, which.machines):
        return Turn(group, reason)
    return Hold("late", reason, _choices(state, plan, group), journaled=False)


def given_up(state: RunState, machines: Iterable[str]) -> list[str]:
    """Those of them that a person vouched for being off at the takeover site: nobody knows that they start there."""
    return [m for m in machines if m in state.vouched]


def _failed(state: RunState, plan: Plan, names: tuple[str, ...], group: str) -> Next:
    name = next(name for name in names if state.effect(name).failed)
    effect = state.effect(name)
    verb = name.split("/")[0]
    going_back = verb in UNDONE_BY or group in state.back
    itself = plan.on_failure == "rollback" and verb not in READY and not going_back
    itself = itself and effect.reason not in PERSONAL
    # Where the takeover side was given up there is nothing to go back to, and what came home may be all there is.
    itself = itself and not given_up(state, plan_group(plan, group).machines if group else ())
    if group and itself and gate_opened(state, plan_group(plan, group)) is None:
        return Turn(group, f"{name}: {effect.error}")
    remedy = effect.remedy or "mend it"
    home = any(state.began(f"commit/{m}") for m in plan_group(plan, group).machines) if group else False
    choices = _choices(state, plan, group, back=going_back or home) if group and touched(state) else _before(state.run)
    if effect.reason == "source-lost":
        machine = name.split("/")[1]
        choices += f"; if it is gone for good, `failback run override {state.run} {machine} --reason WHY` goes on with "
        choices += _window(state, machine)
    elif verb == "halt":
        choices += f"; if you have seen that it is off at home, `failback run override --home {state.run} "
        choices += f"{name.split('/')[1]} --reason WHY`"
    elif verb in ("boot", "verify") and (others := _rest(state, plan, group, name.split("/")[1])):
        choices += f", or `failback run split {state.run} {name.split('/')[1]}`: it stays at the takeover site, and "
        choices += f"{', '.join(others)} come{'s' if len(others) == 1 else ''} home"
    return Hold(effect.reason or "held", f"{name}: {effect.error}", f"{remedy}; then {choices}", journaled=False)


def _rest(state: RunState, plan: Plan, group: str, machine: str) -> list[str]:
    """Who would come home without that machine; nobody where one of them needs it, or users were let in."""
    which = plan_group(plan, group)
    others = [m for m in which.machines if m != machine and m not in state.stay]
    needed = any(machine in plan.machines[m].needs for m in others)
    return [] if needed or group in state.back or gate_opened(state, which) is not None else others


def _window(state: RunState, machine: str) -> str:
    """Its newest point of this run, and what would be lost with it."""
    effects = [state.effect(f"final/{machine}"), state.staged(machine), state.effect(f"export/{machine}")]
    known = [effect.result for effect in effects]
    newest = max((r for r in known if r.get("taken")), key=lambda r: int(r.get("sequence", 0)), default=None)
    if newest is None:
        return "its newest point: what was written since is lost"
    return f"{newest['point']}, taken {newest['taken']}: what was written since is lost"


def _before(run: str) -> str:
    """Nothing was touched yet."""
    return f"`failback run retry {run}`, or `failback run cancel {run}`"


def choices(state: RunState) -> str:
    """Of one that a person holds. The way back of one that has touched anything is said with what it costs."""
    return f"`failback run retry {state.run}`" if touched(state) else _before(state.run)


def _choices(state: RunState, plan: Plan, group: str, *, back: bool = False) -> str:
    return f"`failback run retry {state.run}`" + ("" if back else f", or {way_back(state, plan, group)}")


def _soaking(state: RunState, plan: Plan, group: str, now: datetime) -> Next | None:
    """None: it may be committed. Every look is an effect of its own, made while it is fresh."""
    if f"commit/{group}" in state.answers and state.answers[f"commit/{group}"].yes:
        return None
    opened = _open_since(state, plan_group(plan, group))
    assert opened is not None  # the line comes here behind the gate only
    rule, prefix = plan.commit, f"green/{group}/"
    looks = {int(n.rpartition("/")[2]): e for n, e in state.effects.items() if n.startswith(prefix)}
    done = sorted((e.ended, number) for number, e in looks.items() if e.ended is not None)
    newest = done[-1][0] if done else opened
    green, later = 0, now
    for ended, number in reversed(done):
        # One that is missing in between, while the store was away, begins the count anew.
        if not looks[number].result.get("green") or later - ended > timedelta(seconds=2 * rule.every):
            break
        green, later = green + 1, ended
    if green >= rule.green and now - opened >= timedelta(seconds=rule.after):
        return None
    red = [looks[number] for _ended, number in done[-RED:]]
    if len(red) == RED and not any(look.result.get("green") for look in red) and "not green" not in state.accepted:
        why = str(red[-1].result.get("why") or red[-1].error)
        return Hold("not green", f"{group}: {why}", _choices(state, plan, group), journaled=False)
    open_ended = [number for number, e in looks.items() if e.ended is None]
    due = newest + timedelta(seconds=rule.every)
    if open_ended or now >= due:
        return Do((f"{prefix}{open_ended[0] if open_ended else max(looks, default=0) + 1}",))
    return Wait("soaking", f"{green} of {rule.green} looks were green since {opened:%H:%M:%S}", due)
