"""How much was written at home: what going back would give up, where the target can say it."""

from __future__ import annotations

from pipeline.errors import FailbackError
from pipeline.home.site import Ground, open_site
from pipeline.plans.model import Plan
from pipeline.runs.decide import gate_opened
from pipeline.runs.fold import RunState
from pipeline.target import Writing


def at_stake(state: RunState, plan: Plan) -> list[str]:
    """Machines that users may write to at home, and that can still go back."""
    if state.outcome is not None:
        return []
    return [
        machine
        for group in plan.groups
        if group.name not in state.back and gate_opened(state, group) is not None
        for machine in group.machines
        if machine not in state.stay and not state.began(f"commit/{machine}")
    ]


def written_at_home(ground: Ground, state: RunState, plan: Plan) -> dict[str, int]:
    """Bytes, by machine. Those that cannot be told, or not from this host, are left out: nothing depends on it."""
    found = dict[str, int]()
    for machine in at_stake(state, plan):
        try:
            with open_site(ground, plan.target, machine, "import") as site:
                place = site.find()
                if place is not None and place.build is not None and isinstance(site.importer, Writing):
                    count = site.importer.written(place.build)
                    found |= {} if count is None else {machine: count}
        except FailbackError:
            continue
    return found
