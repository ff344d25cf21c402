"""How often an agent looks for orders: what a look costs, and how long an order waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

FAST = 0.5
"""Seconds between looks while something is going on: 7,200 GETs an hour, $0.003 at AWS."""
IDLE = 10.0
"""Seconds between looks else: 360 GETs an hour."""
LINGER = 120.0
"""Seconds after an order has come or ended in which more are expected."""
ALIVE = 60.0
"""Seconds between signs of life: one PUT and one HEAD each, 60 of each an hour."""
PROGRESS = 10.0
"""Seconds between reports of an order that is worked on: at most 360 PUTs an hour for each."""


@dataclass(slots=True)
class Pace:
    """Decides when to look again. `attend` comes from the controller: more is about to come."""

    idle: float = IDLE
    fast: float = FAST
    now: Callable[[], float] = time.monotonic
    _until: float = field(default=0.0, init=False)

    def stir(self, seconds: float = LINGER) -> None:
        """Something happened, or will within so many seconds."""
        self._until = max(self._until, self.now() + seconds)

    def wait(self, *, active: bool) -> float:
        """Seconds until the next look. `active`: an order is worked on."""
        if active or self.now() < self._until:
            return self.fast
        return max(self.idle, self.fast)
