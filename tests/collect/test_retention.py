"""What a policy keeps, and what no policy ever forgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from manifests.machine import Machine
from manifests.manifest import Manifest
from pipeline.catalogue import Point
from pipeline.collect.retention import Policy, judge


def point(sequence: int, time: datetime, **tags: str) -> Point:
    text = time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    manifest = Manifest(
        machine=Machine(name="vm"),
        sequence=sequence,
        started=text,
        time=text,
        tool="test",
        run=f"{sequence:010d}-0001",
        consistency="crash",
        tags=tags,
        disks=(),
    )
    return Point(manifest, "0" * 64, 0)


def every(step: timedelta, count: int, **tags: str) -> list[Point]:
    start = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    return [point(i + 1, start + i * step, **tags) for i in range(count)]


def kept(points: list[Point], policy: Policy, **options: object) -> list[int]:
    options = {"verified": (), "held": {}} | options
    return [j.point.manifest.sequence for j in judge(points, policy, **options) if j.reasons]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "step", "count", "want"),
    [
        (Policy(last=3), timedelta(hours=1), 10, [8, 9, 10]),
        (Policy(hourly=2), timedelta(minutes=20), 9, [8, 9]),
        (Policy(daily=2), timedelta(hours=12), 6, [4, 6]),
        (Policy(weekly=2), timedelta(days=1), 14, [11, 14]),
        (Policy(monthly=3), timedelta(days=10), 12, [6, 9, 12]),
        (Policy(last=1, monthly=2), timedelta(days=10), 12, [9, 12]),
        (Policy(last=100), timedelta(days=1), 4, [1, 2, 3, 4]),
    ],
)
def test_the_newest_of_each_period_is_kept(policy: Policy, step: timedelta, count: int, want: list[int]) -> None:
    assert kept(every(step, count), policy) == want


def test_periods_without_points_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [*every(timedelta(days=1), 3), point(4, datetime(2027, 5, 1, tzinfo=UTC))]
    assert kept(points, Policy(daily=3)) == [2, 3, 4]


def test_the_order_of_points_is_their_number_and_not_a_wrong_clock() -> None:
    points = [point(1, datetime(2030, 1, 1, tzinfo=UTC)), point(2, datetime(2026, 1, 1, tzinfo=UTC))]
    assert kept(points, Policy(last=1)) == [2]


def test_newest_last_verified_and_held_points_are_never_forgotten() -> None:
    points = every(timedelta(days=1), 10)
    judged = judge(points, Policy(daily=1), verified={2, 4}, held={3: "qemu-1"}, tags={"job": "none of them"})
    assert all(j.reasons for j in judged)
    assert kept(points, Policy(daily=1), verified={2, 4}, held={3: "qemu-1"}) == [3, 4, 10]
    assert kept(points, Policy(daily=1), verified={2, 4, 77}) == [4, 10]


def test_a_policy_by_tag_leaves_all_other_points_alone() -> None:
    nightly = every(timedelta(days=1), 4, job="nightly")
    other = [point(5, datetime(2026, 2, 1, tzinfo=UTC), job="manual"), point(6, datetime(2026, 2, 2, tzinfo=UTC))]
    assert kept([*nightly, *other], Policy(last=1), tags={"job": "nightly"}) == [4, 5, 6]
