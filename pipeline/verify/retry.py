"""How long to wait before a check is tried again."""

from __future__ import annotations

from pydantic import Field

from manifests.machine import Model
from pipeline.verify.duration import Seconds


class Retry(Model):
    """`interval` before the second attempt; each further wait is `factor` times as long, up to `max`."""

    interval: Seconds = 1.0
    factor: float = Field(default=1.5, ge=1, le=100)
    max: Seconds = 15.0

    def delay(self, attempts: int) -> float:
        """Seconds to wait after that many attempts (1 or more)."""
        delay = self.interval
        for _ in range(attempts - 1):
            if delay >= self.max or self.factor == 1:
                break
            delay *= self.factor
        return min(delay, self.max)
