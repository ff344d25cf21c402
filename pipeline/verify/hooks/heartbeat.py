"""`heartbeat`: the guest's agent answers, and goes on answering."""

from __future__ import annotations

from typing import Any

from manifests.machine import Model
from pipeline.verify.duration import Seconds
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, not_applicable, passed
from pipeline.verify.retry import Retry
from pipeline.verify.subject import Subject


class HeartbeatSettings(Model):
    stable: Seconds = 10.0
    """How long it must be seen without a gap."""


class HeartbeatHook(Hook[HeartbeatSettings]):
    """The heartbeat is looked at once an attempt; one look without it begins the time anew."""

    Settings = HeartbeatSettings
    form = "heartbeat or heartbeat:DURATION, for example heartbeat:30s"
    retry = Retry(interval=1.0, factor=1.0)

    def __init__(self, settings: HeartbeatSettings) -> None:
        super().__init__(settings)
        self._since: float | None = None

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        return {"stable": rest} if rest else {}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        if "heartbeat" not in subject.abilities.guest:
            return not_applicable("this platform sees no heartbeat of guests")
        seen = subject.observe().heartbeat
        now = subject.seconds()
        if not seen:
            lost = "" if self._since is None else f"; it was there for {now - self._since:.0f} s"
            self._since = None
            return failed(f"{'no guest agent' if seen is None else 'no heartbeat'} seen{lost}")
        self._since = now if self._since is None else self._since
        stable = now - self._since
        text = f"heartbeat for {stable:.0f} s without a gap"
        return passed(text) if stable >= self.settings.stable else failed(f"{text} of {self.settings.stable:.0f} s")
