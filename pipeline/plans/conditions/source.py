"""`source`: the side where the machines run now answers, for each of them."""

from __future__ import annotations

from pipeline.plans.condition import Answer, World
from pipeline.plans.conditions.machines import LookAtMachines, OfMachines


class SourceSettings(OfMachines):
    pass


class SourceLook(LookAtMachines[SourceSettings]):
    Settings = SourceSettings

    def look_at(self, machine: str, world: World) -> Answer:
        state = world.source().observe(machine, world.plan.machines[machine].source)
        detail = f" ({state.detail})" if state.detail else ""
        return Answer(state.power != "unknown", f"{machine}: power {state.power} at the source{detail}")
