"""Where the seconds of a command go."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipeline.units import duration

Steps = Mapping[str, float]
"""Seconds by step, in the order in which the steps began. Together at most what the whole took."""


class Laps:
    """Seconds of one step after the other. `since`: when the first began (time.monotonic)."""

    def __init__(self, since: float | None = None) -> None:
        self._last = time.monotonic() if since is None else since
        self._steps: dict[str, float] = {}

    def lap(self, step: str, within: Steps | None = None) -> None:
        """What passed since the last lap was this step. `within`: what is known of it by others; then only the rest
        goes by its name."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        for name, seconds in (within or {}).items():
            self._add(name, seconds)
            passed -= seconds
        self._add(step, max(passed, 0.0))

    @property
    def steps(self) -> dict[str, float]:
        """So far, rounded to milliseconds."""
        return {step: round(seconds, 3) for step, seconds in self._steps.items()}

    def _add(self, step: str, seconds: float) -> None:
        self._steps[step] = self._steps.get(step, 0.0) + seconds


def shown(steps: Steps) -> str:
    """For people: `write 1.2 s, flush 0.3 s`. Steps that took no time to speak of are left out."""
    return ", ".join(f"{step} {duration(seconds)}" for step, seconds in steps.items() if seconds >= 0.05)
