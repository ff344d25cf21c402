"""Conditions about machines: all of the plan's, or some."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from manifests.machine import Model
from pipeline.errors import CatalogueError, FailbackError, UsageError
from pipeline.plans.condition import Answer, Look, World
from pipeline.plans.model import MachineName, Plan


class OfMachines(Model):
    machines: tuple[MachineName, ...] = ()
    """Empty: all of the plan."""


M = TypeVar("M", bound=OfMachines)


class LookAtMachines(Look[M]):
    """Holds when it holds for each machine. What does not is said first."""

    def check(self, plan: Plan) -> None:
        for name in self.settings.machines:
            if name not in plan.machines:
                raise UsageError(
                    f"the condition is about {name}, which is not in plan {plan.name}",
                    remedy=f"machines of the plan are {', '.join(plan.machines)}",
                )

    def look(self, world: World) -> Answer:
        self.check(world.plan)
        good: list[str] = []
        bad: list[str] = []
        for name in self.settings.machines or world.plan.machines:
            try:
                answer = self.look_at(name, world)
            except UsageError:
                raise
            except CatalogueError as error:
                # The run exports when all conditions hold: one that asks for a point waits for somebody else's.
                how = f"; `failback schedule run {world.plan.name} export` makes one" if reads(name, world) else ""
                answer = Answer(False, f"{name}: {error.message}{how}")
            except FailbackError as error:
                answer = Answer(False, f"{name}: {error.message}")
            (good if answer.holds else bad).append(answer.seen)
        return Answer(not bad, "; ".join(bad or good))

    @abstractmethod
    def look_at(self, machine: str, world: World) -> Answer:
        """`seen` begins with the machine's name."""


def reads(machine: str, world: World) -> bool:
    """Whether points of the machine are made by the plan's own source."""
    return world.source().able(machine, world.plan.machines[machine].source).reads
