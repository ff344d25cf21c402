"""`flag`: a person says so, for this run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from manifests.machine import Model
from pipeline.plans.condition import Answer, Look, World


class FlagSettings(Model):
    flag: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """Its name."""
    question: str = ""
    """What a person confirms by setting it."""


class FlagLook(Look[FlagSettings]):
    Settings = FlagSettings
    of_run = True

    def look(self, world: World) -> Answer:
        flag, question = self.settings.flag, self.settings.question
        asked = f" ({question})" if question else ""
        if flag in world.flags:
            return Answer(True, f"flag {flag} is set{asked}")
        how = f": `failback run flag {world.run} {flag}`" if world.run else " when there is a run"
        return Answer(False, f"a person has to set flag {flag}{asked}{how}")
