"""`command`: a program says so, by ending with 0."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.plans.condition import Answer, Look, World
from pipeline.plans.program import ProgramSettings, run_program
from pipeline.verify.duration import Seconds


class CommandSettings(ProgramSettings):
    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments; no shell."""
    timeout: Annotated[Seconds, Field(gt=0)] = 60.0


class CommandLook(Look[CommandSettings]):
    """It gets FAILBACK_PLAN and FAILBACK_RUN (empty: none yet)."""

    Settings = CommandSettings

    def look(self, world: World) -> Answer:
        settings = self.settings
        variables = {"FAILBACK_PLAN": world.plan.name, "FAILBACK_RUN": world.run}
        done = run_program(settings.argv, settings, seconds=settings.timeout, variables=variables)
        return Answer(done.code == 0, done.seen)
