"""`run`: another plan came home."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manifests.machine import Model
from pipeline.errors import UsageError
from pipeline.plans.condition import Answer, Look, World
from pipeline.plans.model import PLAN_NAME, Plan
from pipeline.units import duration
from pipeline.verify.duration import LongSeconds


class RunSettings(Model):
    plan: Annotated[str, Field(pattern=f"^{PLAN_NAME}$")]
    """Whose newest run counts."""
    outcome: Literal["committed", "rehearsed"] = "committed"
    """committed: its machines are home for good; rehearsed: they were tried out, and all was well."""
    within: LongSeconds | None = None
    """It has to have ended so long ago at most."""


class RunLook(Look[RunSettings]):
    Settings = RunSettings

    def check(self, plan: Plan) -> None:
        if self.settings.plan == plan.name:
            raise UsageError(f"plan {plan.name} waits for a run of its own", remedy="name another plan")

    def look(self, world: World) -> Answer:
        from pipeline.runs.begin import runs  # runs execute plans, and so know them

        settings = self.settings
        purpose = "cutover" if settings.outcome == "committed" else "rehearsal"
        found = [s for s in runs(world.repository, settings.plan) if s.started is not None and s.purpose == purpose]
        if not found:
            return Answer(
                False,
                f"plan {settings.plan} was never run"
                if purpose == "cutover"
                else f"plan {settings.plan} was never rehearsed",
            )
        state = max(found, key=lambda s: (s.started is not None, s.started))
        if state.outcome is None:
            return Answer(False, f"run {state.run} is not over")
        ago = (world.now - state.finished).total_seconds() if state.finished is not None else 0.0
        seen = f"run {state.run} ended {duration(max(ago, 0.0))} ago: {state.outcome}"
        if state.outcome != settings.outcome:
            return Answer(False, f"{seen}, wanted: {settings.outcome}")
        if settings.within is not None and ago > settings.within:
            return Answer(False, f"{seen}, wanted: within {duration(settings.within)}")
        return Answer(True, seen)
