"""A run as a Markdown page for a person who has to finish it, or to go back, with nothing but the platforms at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pipeline.plans.model import Group, Plan, TrafficStep
from pipeline.runs.decide import gate_opened
from pipeline.runs.fold import RunState
from pipeline.runs.line import ordered
from pipeline.runs.ownership import Epoch
from pipeline.runs.report import headline, machine_line, undo

_RULE = "Never start a machine on one side before you have seen with your own eyes that it is off on the other."


def runbook(state: RunState, plan: Plan, epoch: Callable[[str], Epoch], place: Callable[[str], dict[str, Any]]) -> str:
    """`epoch` gives a machine's ownership, `place` what the target shows of it (empty: nothing is there)."""
    sentence = undo(state, plan)
    parts = [
        f"# Run {state.run}",
        f"Plan {state.plan}@{state.version}, target `{plan.target}`, source `{plan.source.kind}`. "
        f"As of entry {state.number} of its journal: **{headline(state)}**.",
        *_common(plan),
        f"{sentence[:1].upper()}{sentence[1:]}.",
        f"> {_RULE}",
    ]
    for group in ordered(plan):
        parts += _group(state, plan, group, epoch, place)
    parts += ["## Without failback", _WITHOUT]
    return "\n\n".join(parts) + "\n"


def _common(plan: Plan) -> list[str]:
    """How all machines are switched and locked, where it is said once for them."""
    options = plan.source.options
    return [f"For all machines at the takeover site: `{json.dumps(options, sort_keys=True)}`."] if options else []


_WITHOUT = """\
Disks: every recovery point named above can be read by `failback import POINT --to files --out DIR` from any host that
has the bucket and the key; the format is written down in FORMAT.md, which is kept with the recovery sheet.

Who may run a machine is what the newest object below `leases/MACHINE/` says. If you move a machine by hand, write down
when and why: this run will find a foreign change and stop."""


def _group(
    state: RunState, plan: Plan, group: Group, epoch: Callable[[str], Epoch], place: Callable[[str], dict[str, Any]]
) -> list[str]:
    waves = "; then ".join(", ".join(wave) for wave in group.waves)
    parts = [f"## Group {group.name}", f"Boot order: {waves}. Stop in the reverse order."]
    for machine in group.machines:
        parts += [f"### {machine}", _machine(state, plan, machine, epoch(machine), place(machine))]
    if state.outcome is not None:
        return parts  # steps of a run that is over would undo what it came to
    parts += ["### To finish by hand", _steps(_finish(state, plan, group))]
    parts += ["### To go back by hand", _steps(_back(state, plan, group))]
    return parts


def _machine(state: RunState, plan: Plan, machine: str, epoch: Epoch, place: dict[str, Any]) -> str:
    point = state.effect(f"final/{machine}").result.get("point") or state.staged(machine).result.get("point")
    proof = state.effect(f"prove/{machine}").result
    rows = [
        f"- now: {machine_line(state, machine, back=plan.group_of(machine).name in state.back)}",
        f"- ownership: {epoch.side}" + (f" (epoch {epoch.number}, run {epoch.run})" if epoch.number else ""),
        f"- point: {point or 'none yet'}",
        f"- at the takeover site: `{json.dumps(plan.machines[machine].source, sort_keys=True)}`",
        f"- proved off there: {proof.get('seen') or proof.get('override') or 'no'}",
    ]
    rows += [f"- at home, {name}: `{value}`" for name, value in sorted(place.items())]
    return "\n".join(rows)


def _finish(state: RunState, plan: Plan, group: Group) -> list[str]:
    going = [m for m in group.machines if m not in state.stay]
    steps = [f"see that {m} is off at the takeover site, and cannot start there by itself" for m in reversed(going)]
    steps += [step for m in going for step in _lacking(state, m)]
    for wave in group.waves:
        here = [m for m in wave if m in going]
        steps += [f"start {m} at `{plan.target}` from the disks named above" for m in here]
        for machine in here:
            steps += [f"check {machine}: {c.name} ({c.hook}{_said(c.settings)})" for c in plan.machines[machine].checks]
    return [*steps, *(_gate(step, "open") for step in group.traffic)]


def _lacking(state: RunState, machine: str) -> list[str]:
    """What the disks at home do not hold yet."""
    here = state.staged(machine).result.get("point")
    if not state.done(f"final/{machine}"):
        what = f"what {machine} wrote since {here} is" if here else f"the disks of {machine} are"
        return [f"{what} not at home: export it once more and bring that home, or decide to lose it"]
    if not state.done(f"refresh/{machine}"):
        last = state.effect(f"final/{machine}").result.get("point")
        return [f"bring {last} onto the disks of {machine} at home: they hold {here or 'nothing yet'}"]
    return []


def _said(settings: dict[str, Any]) -> str:
    return f" `{json.dumps(settings, sort_keys=True, default=str)}`" if settings else ""


def _back(state: RunState, plan: Plan, group: Group) -> list[str]:
    steps = []
    if gate_opened(state, group) is not None:
        steps.append("users were let in: export what was written at home first, or decide to lose it")
    steps += [_gate(step, "close") for step in reversed(group.traffic)]
    steps += [f"switch {m} off at `{plan.target}`, and see that it is off" for m in reversed(group.machines)]
    for wave in group.waves:
        steps += [f"unlock {m} at the takeover site and start it" for m in wave]
    return steps


def _gate(step: TrafficStep, verb: str) -> str:
    """Of programs the one that does it; of other kinds all that they go by."""
    said = step.settings.get(verb) if step.kind == "command" else step.settings
    return f"{verb} {step.name}: {step.kind} `{json.dumps(said, sort_keys=True)}`"


def _steps(steps: list[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1)) or "Nothing is left to do."
