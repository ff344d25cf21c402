"""How far a transfer is. Pipelines count, whoever watches decides what to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Bytes unless said otherwise. Changed by one thread only; anyone may read."""

    phase: str = ""
    disk: str = ""
    """Or what else it is about, such as checks that are waited for."""
    total: int = 0
    """Bytes to go through in this phase; 0: it is not about bytes."""
    done: int = 0
    """Bytes gone through, holes included."""
    read: int = 0
    """Bytes read from the source disk (export) or fetched from the store (restore)."""
    sent: int = 0
    """Stored bytes sent to the store, or bytes of a stream sent to a target."""
    resent: int = 0
    """Those of `sent` that are chunks which did not change: sent again, so that mostly dead packs die whole."""
    written: int = 0
    """Plain bytes written to the target."""
    unchanged: int = 0
    """Plain bytes that the parent has at the same place."""
    deduplicated: int = 0
    """Plain bytes found elsewhere: in a base, a seed, or sent before."""
    chunks_new: int = 0
    """Chunks (a number) that were sent."""


Watch = Callable[[Counters], None]
"""Called often, from the thread that runs the transfer; must be quick."""


@dataclass(slots=True)
class Report:
    """What a pipeline tells its caller besides counters."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def ignore(_counters: Counters) -> None:
    """A Watch that shows nothing."""
