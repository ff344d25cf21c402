"""What time it is at the store: the only clock that deadlines, approvals and signs of life go by."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import StoreError
from pipeline.store.base import Store

SUSPECT = timedelta(seconds=60)
"""A clock of the store that moves so much against ours between two looks was set."""


@dataclass(slots=True)
class StoreClock:
    """Looks by writing `key` and asking when it was stored; between looks it counts seconds since boot, which go on
    while the host sleeps. `suspect` says how the store's clock jumped, and goes on to say so; empty: it did not."""

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
            passed = info.modified - self._at
            # A host that was frozen counted nothing since its boot, and one whose clock was set has a wrong one: the
            # store's is to be blamed where it agrees with neither.
            offs = (passed - timedelta(seconds=boot - self._boot), passed - (wall - self._wall))
            off = min(offs, key=abs)
            if abs(off) > SUSPECT:
                self.suspect = f"the store's clock jumped by {off.total_seconds():+.0f} s"
        self._at, self._boot, self._wall = info.modified, boot, wall
        return info.modified

    def now(self) -> datetime:
        """The store's time now. Raises StoreError when it was never looked at."""
        if self._at is None:
            raise StoreError("the store's time is not known yet")
        return self._at + timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME) - self._boot)
