"""Which points of a machine a policy keeps, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from pipeline.catalogue import Point

_PERIODS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: t.isocalendar()[:2],
    "monthly": lambda t: (t.year, t.month),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Keep the newest `last` points, and the newest one of each of the last so many hours, days, weeks (from Monday)
    and months that have points; by the manifests' times, in UTC."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Judged:
    """A point, and why it is kept (nothing: it is forgotten)."""

    point: Point
    reasons: tuple[str, ...]


def judge(
    points: Sequence[Point],
    policy: Policy,
    *,
    verified: Collection[int],
    held: dict[int, str],
    tags: dict[str, str] | None = None,
) -> list[Judged]:
    """`points` of one machine, all that can be used, oldest first. With `tags` the policy is about the points that have
    them, and all others stay. Whatever the policy says, kept are: the machine's newest point, its last verified one,
    and those that are held."""
    mine = [p for p in points if _has(p, tags or {})]
    reasons: dict[int, list[str]] = {p.manifest.sequence: [] for p in points}
    for point in mine[::-1][: policy.last]:
        reasons[point.manifest.sequence].append("last")
    for name, period_of in _PERIODS.items():
        seen: set[tuple[int, ...]] = set()
        for point in reversed(mine):
            period = period_of(datetime.fromisoformat(point.manifest.time).astimezone(UTC))
            if period in seen:
                continue
            if len(seen) >= getattr(policy, name):
                break
            seen.add(period)
            reasons[point.manifest.sequence].append(name)
    chosen = {p.manifest.sequence for p in mine}
    for point in points:
        sequence = point.manifest.sequence
        if sequence not in chosen:
            reasons[sequence].append("has other tags")
        if sequence in held:
            reasons[sequence].append(f"held by {held[sequence]}")
    if points:
        reasons[points[-1].manifest.sequence].append("newest")
    proved = [p.manifest.sequence for p in points if p.manifest.sequence in verified]
    if proved:
        reasons[proved[-1]].append("last verified")
    return [Judged(p, tuple(reasons[p.manifest.sequence])) for p in points]


def _has(point: Point, tags: dict[str, str]) -> bool:
    return all(point.manifest.tags.get(key) == value for key, value in tags.items())
