"""What time it is at the store: the only clock that deadlines, approvals and signs of life go by."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import StoreError
from pipeline.store.base import Store

SUSPECT = timedelta(seconds=60)
"""A local clock that moves so much against the store's between two looks was set, or the store's was."""


@dataclass(slots=True)
class StoreClock:
    """Looks by writing `key` and asking when it was stored; between looks it counts seconds since boot, which go on
    while the host sleeps. `suspect` says how the two clocks disagree; empty: they do not."""

    store: Store
    key: str
    suspect: str = ""
    _at: datetime | None = None
    _boot: float = 0.0
    _wall: datetime | None = None

    def look(self, data: bytes) -> datetime:
        """Write `data` to the key; the store's time. Raises StoreError."""
        self.store.put(self.key, data)
        info = self.store.head(self.key)
        if info is None:
            raise StoreError(f"{self.key} was written and is not there", remedy="look whether somebody cleans up there")
        wall, boot = datetime.now(UTC), time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._at is not None and self._wall is not None:
            passed = timedelta(seconds=boot - self._boot)
            moved = [
                (name, off)
                for name, off in (
                    ("store", info.modified - self._at - passed),
                    ("this host", wall - self._wall - passed),
                )
                if abs(off) > SUSPECT
            ]
            self.suspect = "; ".join(
                f"the clock of {name} jumped by {off.total_seconds():.0f} s" for name, off in moved
            )
        self._at, self._boot, self._wall = info.modified, boot, wall
        return info.modified

    def now(self) -> datetime:
        """The store's time now. Raises StoreError when it was never looked at."""
        if self._at is None:
            raise StoreError("the store's time is not known yet")
        return self._at + timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME) - self._boot)
