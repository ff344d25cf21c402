"""A hook: somebody is at the door."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from manifests.machine import Model
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, passed
from pipeline.verify.subject import Subject


class DoorSettings(Model):
    name: str = "nobody"
    waits_for: str = ""
    """A file: it is made when this hook looks, and the hook waits until the attempt ends."""


class DoorHook(Hook[DoorSettings]):
    Settings = DoorSettings
    form = "door:NAME"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        return {"name": rest} if rest else {}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        if os.environ.get("SHED_DIES_AT") == "hook":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.waits_for:
            Path(self.settings.waits_for).touch()
            attempt.cancelled.wait(attempt.seconds)
            return failed("waited in vain")
        if subject.machine.name == self.settings.name:
            return passed(f"{self.settings.name} is at the door, {'alone' if subject.isolated else 'in company'}")
        return Outcome("failed", f"{subject.machine.name} is at the door, not {self.settings.name}", final=True)
