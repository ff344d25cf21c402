"""The store's time, without asking the store each time and without believing this host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pipeline.errors import CorruptObject, StoreUnavailable
from pipeline.store.base import Bytes, Store

SET_BACK = 300.0
"""Seconds by which the store's time may fall behind what it was: nodes of one store differ, and more is no clock."""


class StoreClock:
    """Learned by writing an object and asking when that was; from then on this host only counts seconds (suspended
    ones, too). Resolution: that of the store's times, one second for S3."""

    def __init__(self, *, boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)) -> None:
        self._boottime = boottime
        self._ahead: float | None = None
        """Store's time in seconds of the epoch minus this host's seconds since boot."""

    @property
    def known(self) -> bool:
        return self._ahead is not None

    def learn(self, store: Store, key: str, data: Bytes) -> None:
        """Write `data` to `key` and take its time. Raises StoreError; CorruptObject when time went back."""
        before = self._boottime()
        store.put(key, data)
        info = store.head(key)
        if info is None:
            raise StoreUnavailable(f"{key} was written and is not there", remedy="somebody deletes it: find out who")
        # It was stored after `before`: so the store's time is not overestimated by slow requests.
        ahead = info.modified.timestamp() - before
        if self._ahead is not None and ahead < self._ahead - SET_BACK:
            raise CorruptObject(
                f"the store's clock went back by {self._ahead - ahead:.0f} s",
                remedy="somebody set it back, or shows older objects: orders that have expired must not come alive",
            )
        self._ahead = ahead

    def now(self) -> datetime:
        """The store's time. `learn` comes first."""
        assert self._ahead is not None
        return datetime.fromtimestamp(self._ahead + self._boottime(), UTC)

    def after(self, seconds: float) -> str:
        """As text, so many seconds from now."""
        return as_text(self.now() + timedelta(seconds=seconds))


def as_text(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def from_text(text: str) -> datetime:
    """Raises ValueError."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
