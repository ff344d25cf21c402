"""A run in words: for `run show`, `watch`, and at the end of every command that conducts one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pipeline.laps import shown
from pipeline.plans.model import Group, Plan
from pipeline.runs.decide import Ask, Hold, Look, Next, Paused, Wait, choices, gate_opened, given_up, touched, way_back
from pipeline.runs.downtime import downtime
from pipeline.runs.entries import (
    Asked,
    Away,
    Body,
    Decided,
    Ended,
    Entry,
    Finished,
    Held,
    Intended,
    Met,
    Started,
    Taken,
    Turned,
    Waits,
)
from pipeline.runs.fold import Effect, RunState, asked_now, open_question
from pipeline.runs.line import UNDONE_BY, ordered
from pipeline.units import duration, size

Written = Mapping[str, int]
"""Bytes by machine, as far as targets tell."""
NOTHING: Written = MappingProxyType({})
Steps = tuple[tuple[str, str], ...]
STEPS: Steps = (
    ("export", "exported"), ("stage", "staged"), ("catchup", "caught up"), ("quiesce", "quiesced"),
    ("final", "last point taken"), ("stop", "stopped"), ("prove", "proved off"), ("lock", "locked"),
    ("refresh", "refreshed"), ("own", "owned"), ("boot", "started at home"), ("verify", "verified"),
    ("commit", "home for good"),
)  # fmt: skip
"""Verbs of one machine in their order, and what is true once they are done."""
BACK: Steps = (("halt", "off at home"), ("return", "given back"), ("restart", "runs at the takeover site"))
"""Those of the way back."""


_MEANS = {"cutover": "brings home", "gate": "lets users in to", "commit": "accepts for good"}
"""What a yes to a question does."""
_RESUME = "`failback run resume {}`"


def headline(state: RunState) -> str:
    """Where it is, in a few words."""
    if state.outcome is not None:
        return state.outcome
    if state.paused:
        return f"paused by {state.paused}"
    if state.stand is not None:
        return f"{state.stand.state}: {state.stand.reason}"
    if state.back:
        return f"going back: {', '.join(state.back)}"
    if asked := [q.what for q in state.questions.values() if open_question(state, q.what)]:
        return f"asks for approval: {', '.join(asked)}"
    if state.met is None:
        return "waits for its conditions"
    if state.awaiting:
        return f"waits for the conditions of a cutover: {state.awaiting}"
    running = [name for name, e in state.effects.items() if e.began and not e.done and not e.failed]
    return f"under way: {', '.join(running)}" if running else "under way"


def lines(state: RunState, plan: Plan, coming: Next | None, written: Written = NOTHING) -> list[str]:
    """The run, its machines by groups and waves, what it waits for, and what going back costs."""
    return [*machines(state, plan), *standing(state, plan, coming, written)]


def machines(state: RunState, plan: Plan) -> list[str]:
    """The run, and how far its machines are."""
    began = f"{state.started:%Y-%m-%d %H:%M:%S} UTC" if state.started else "?"
    found = [f"run {state.run} of {state.plan}@{state.version}, begun {began} by {state.started_by}", ""]
    for group in ordered(plan):
        found.append(f"  {group.name}{_group_note(state, group)}")
        wide = min(20, max(map(len, group.machines)))
        for number, wave in enumerate(group.waves, 1):
            for machine in wave:
                said = machine_line(state, machine, back=group.name in state.back)
                found.append(f"    wave {number}  {machine:<{wide}}  {said}")
        found += [f"    {line}" for line in [*_rehearsed(state, group), *_down_for(state, group)]]
    return found


def standing(state: RunState, plan: Plan, coming: Next | None, written: Written = NOTHING) -> list[str]:
    """Where the run is, what it waits for, and what going back costs."""
    waiting = [f"    {what}" for what in _waiting(state, coming)]
    return ["", f"  {headline(state)}", *waiting, f"  {undo(state, plan, written)}"]


def machine_line(state: RunState, machine: str, *, back: bool = False) -> str:
    """The furthest step of one machine, and what is wrong with it. `back`: its group is taken back."""
    reached, steps = "waits", STEPS
    if machine in state.stay:
        reached, steps = "stays at the takeover site", BACK
    elif back and begun(state, machine):
        reached, steps = "goes back", BACK
    for verb, words in steps:
        rounds = state.catch_ups(machine) if verb == "catchup" else []
        effect = rounds[-1] if rounds else state.effect(f"{verb}/{machine}")
        if effect.done:
            reached = words
        elif effect.failed:
            return f"{verb} failed: {effect.error}"
        elif effect.began:
            return f"{reached}; {verb} is under way{_again(effect)}"
    if steps is BACK:
        return reached
    point = state.effect(f"final/{machine}").result.get("point") or state.staged(machine).result.get("point")
    return f"{reached}  ({point})" if point else reached


def begun(state: RunState, machine: str) -> bool:
    """Whether the takeover side of this machine may be other than it was."""
    return any(state.began(f"{verb}/{machine}") for verb in UNDONE_BY["restart"])


def undo(state: RunState, plan: Plan, written: Written = NOTHING) -> str:
    """What going back would cost now. `written`: bytes that machines hold at home since they were started there."""
    if state.outcome == "committed":
        return "there is no way back by this run: home is committed"
    if not touched(state):
        return "going back now costs nothing: the takeover side was not touched"
    if state.outcome == "rolled back":
        down = _down(state, plan)
        return (
            f"it went back, but {', '.join(down)}: look there" if down else "it went back: the takeover side runs again"
        )
    done = [g.name for g in plan.groups if any(state.began(f"commit/{m}") for m in g.machines)]
    parts = [_kept(state, plan, done)] if done else []
    rest = [g for g in plan.groups if g.name not in done and any(begun(state, m) for m in g.machines)]
    if rest and state.outcome is None:
        parts.append(_others(state, plan, rest, written))
    return "; ".join(parts)


def _kept(state: RunState, plan: Plan, done: list[str]) -> str:
    """Groups whose commit has begun."""
    going = [m for g in plan.groups if g.name in done for m in g.machines if m not in state.stay]
    left = [m for m in going if not state.done(f"commit/{m}")]
    more = f", but {', '.join(left)}: the commit goes on (`failback run conduct {state.run}`)" if left else ""
    return f"there is no way back for {', '.join(done)}: home for good{more}"


def _others(state: RunState, plan: Plan, groups: list[Group], written: Written) -> str:
    """Groups that were touched, and are not home for good."""
    forth = [g for g in groups if g.name not in state.back]
    if not forth:
        return "it is going back: the takeover side runs again once home is proved off"
    if opened := [(g, t) for g in forth if (t := gate_opened(state, g)) is not None]:
        group, time = min(opened, key=lambda entry: entry[1])
        return (
            f"going back now gives up what was written at home in {group.name} since {time:%H:%M} UTC"
            f"{_amount(state, written)} ({way_back(state, plan, group.name)})"
        )
    how = " and ".join(way_back(state, plan, group.name) for group in forth)
    if gone := given_up(state, [m for g in forth for m in g.machines]):
        return (
            f"going back now may leave {', '.join(gone)} running nowhere: given up at the takeover site by "
            f"{state.vouched[gone[0]]} ({how})"
        )
    return f"going back now costs nothing but the time to start the takeover side ({how})"


def _down(state: RunState, plan: Plan) -> list[str]:
    """Machines that went back and do not run at the takeover site, as far as this run knows."""
    ends = [(m, state.effect(f"restart/{m}").result) for group in plan.groups for m in group.machines]
    return [str(result.get("elsewhere") or f"{m} does not run") for m, result in ends if result.get("running") is False]


def _amount(state: RunState, written: Written) -> str:
    """Layers begin when machines are started, which is before the gate opens."""
    if not written:
        return ""
    started = [e for m in written if (e := state.effect(f"boot/{m}").ended) is not None]
    since = f" since {min(started):%H:%M}, when it was started" if started else ""
    return f": {size(sum(written.values()))} written there{since}"


def document(state: RunState, plan: Plan, coming: Next | None, written: Written = NOTHING) -> dict[str, Any]:
    """The same as values for JSON."""
    return {
        "run": state.run,
        "plan": f"{state.plan}@{state.version}",
        "purpose": state.purpose,
        "entries": state.number,
        "outcome": state.outcome,
        "state": headline(state),
        "waiting": _waiting(state, coming),
        "undo": undo(state, plan, written),
        "written": dict(written),
        "groups": [
            {
                "name": group.name,
                "waves": [
                    {m: machine_line(state, m, back=group.name in state.back) for m in wave} for wave in group.waves
                ],
                "back": state.back.get(group.name),
                "downtime": _downtime(state, group),
            }
            for group in ordered(plan)
        ],
        "effects": {
            name: {"done": e.done, "failed": e.failed, "attempts": e.attempts, "error": e.error, "result": e.result}
            for name, e in state.effects.items()
        },
    }


def entry_line(entry: Entry) -> str:
    """One entry of the journal, for people; all of it is in JSON."""
    return f"{entry.number:>5}  {entry.time:%H:%M:%S}  {entry.body.kind:<8}  {_entry(entry.body)}  ({entry.by})"


def _entry(body: Body) -> str:
    match body:
        case Started():
            return f"{body.plan}@{body.version}, {body.purpose}"
        case Taken():
            return body.why
        case Intended():
            return body.effect + (f", attempt {body.attempt}" if body.attempt > 1 else "")
        case Ended(done=True):
            point = body.result.get("point")
            return f"{body.effect}: done" + (f", {point}" if point else "")
        case Ended():
            return f"{body.effect}: failed{', and is tried again' if body.transient else ''}: {body.error}"
        case Away():
            return f"the store was away for {body.seconds:.0f} s"
        case Met() | Waits():
            return f"{body.group}: {', '.join(body.answers)}" if body.group else ", ".join(body.answers)
        case Asked():
            return f"{body.what}: {', '.join(map(str, body.shown.get('points', {}).values()))}".rstrip(": ")
        case Held():
            return f"{body.state}: {body.reason}"
        case Turned():
            return f"{body.group} goes back: {body.reason}"
        case Decided():
            return _word(body)
        case Finished():
            return body.outcome


def _word(body: Decided) -> str:
    """What a person said."""
    about = [body.what, *body.machines, *(["yes" if body.yes else "no"] if body.verb == "answer" else [])]
    about += ["what was written at home is given up"] if body.discard else []
    said = " ".join([body.verb, ", ".join(filter(None, about))]).strip()
    return f"{said}: {body.reason}" if body.reason else said


def _waiting(state: RunState, coming: Next | None) -> list[str]:
    """What it waits for, and what a person can do."""
    match coming:
        case Hold(remedy=remedy):
            return [remedy] if remedy else []
        case Ask(what=what, shown=shown):
            return _question(state, what, shown)
        case Paused():
            return [_RESUME.format(state.run)]
        case Wait(reason=reason, until=until):
            return [f"{reason}; looks again at {until:%H:%M:%S} UTC"]
        case Look():
            return [f"`failback run conduct {state.run}` looks at the conditions again"]
    return _wanted(state)


def _wanted(state: RunState) -> list[str]:
    """What a person can do, as far as the journal says by itself."""
    if state.outcome is not None:
        return []
    if state.paused:
        return [_RESUME.format(state.run)]
    if state.stand is not None:
        return [state.stand.remedy or choices(state)]
    return [line for question in asked_now(state) for line in _question(state, question.what, question.shown)]


def _question(state: RunState, what: str, shown: dict[str, Any]) -> list[str]:
    points = ", ".join(f"{m}: {p}" for m, p in shown.get("points", {}).items())
    return [
        f"{what} {_MEANS[what.partition('/')[0]]} {points} at {shown.get('target')}",
        f"`failback run approve {state.run}` or `failback run reject {state.run}`",
    ]


def _rehearsed(state: RunState, group: Group) -> list[str]:
    """What a rehearsal of the group found, a line a machine."""
    effect = state.effect(f"rehearse/{group.name}")
    if effect.failed:
        return [f"rehearsal failed: {effect.error}"]
    found = []
    for machine, verdict in effect.result.get("machines", {}).items():
        checks = verdict.get("checks", [])
        passed = sum(check.get("status") == "passed" for check in checks)
        found.append(f"rehearsed {machine:<20} {passed} of {len(checks)} checks passed in {verdict.get('seconds')} s")
    return found


def _down_for(state: RunState, group: Group) -> list[str]:
    """How long it was down so far, and what most of that went to."""
    found = downtime(state, group)
    if found is None or not found.steps:
        return []
    most = dict(sorted(found.steps.items(), key=lambda step: -step[1])[:3])
    return [f"down {duration(found.seconds)} from {found.since:%H:%M:%S} UTC: most for {shown(most)}"]


def _downtime(state: RunState, group: Group) -> dict[str, Any] | None:
    found = downtime(state, group)
    if found is None:
        return None
    return {"since": found.since.isoformat(), "seconds": found.seconds, "steps": dict(found.steps)}


def _group_note(state: RunState, group: Group) -> str:
    if group.name in state.back:
        return f": goes back ({state.back[group.name]})"
    return ""


def _again(effect: Effect) -> str:
    return f" (attempt {effect.attempts}: {effect.error})" if effect.error else ""
