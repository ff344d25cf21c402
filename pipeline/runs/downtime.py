"""How long users were without a group of machines, and what that time went to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.laps import Steps
from pipeline.plans.model import Group
from pipeline.runs.fold import RunState

_FIRST = ("quiesce", "stop")
_VERBS = ("quiesce", "final", "stop", "prove", "lock", "set", "refresh", "own", "boot", "verify", "clock", "open")


@dataclass(frozen=True, slots=True)
class Downtime:
    """By the store's clock, from `since`, when the first machine was about to be quiesced or stopped, to the newest end
    of what lies between that and the users: in the end the last step that lets them in."""

    since: datetime
    steps: Steps
    """Seconds by verb: what passed since an effect before it ended. So what the conductor does between two effects goes
    by the name of the later, and all together are the whole."""

    @property
    def seconds(self) -> float:
        return round(sum(self.steps.values()), 3)


def downtime(state: RunState, group: Group) -> Downtime | None:
    """None: it was not down by this run, or it was taken back."""
    machines = [m for m in group.machines if m not in state.stay]
    begun = [t for m in machines for verb in _FIRST if (t := state.effect(f"{verb}/{m}").since) is not None]
    if not begun or group.name in state.back:
        return None
    subjects = {*machines, group.name, *(f"{group.name}/{step.name}" for step in group.traffic)}
    ends = []
    for name, effect in state.effects.items():
        verb, _, subject = name.partition("/")
        if verb in _VERBS and subject in subjects and effect.done and effect.ended is not None:
            ends.append((effect.ended, verb))
    last = since = min(begun)
    steps: dict[str, float] = {}
    for time, verb in sorted(end for end in ends if end[0] >= since):
        steps[verb] = round(steps.get(verb, 0.0) + (time - last).total_seconds(), 3)
        last = time
    return Downtime(since, steps)
