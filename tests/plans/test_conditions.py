"""Conditions hold or do not, say what was seen, and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manifests.names import PointName
from pipeline.catalogue import forget, resolve
from pipeline.collect.record import record_verification
from pipeline.errors import StoreUnavailable, UsageError
from pipeline.home.bring import bring_home
from pipeline.plans.agree import condition_of
from pipeline.plans.condition import Answer
from pipeline.plans.model import Condition
from pipeline.runs.entries import Finished, Started
from pipeline.runs.journal import Journal
from pipeline.store.base import Bytes
from pipeline.store.layer import Layer
from pipeline.wanted import resolve as resolve_mapping
from plans.conftest import Scene


def look(scene: Scene, kind: str, *, now: datetime | None = None, **settings: Any) -> Answer:
    condition = Condition(name="test", kind=kind, settings=settings)
    return condition_of(condition).look(scene.world(now=now))


def export_all(scene: Scene) -> None:
    for machine in scene.plan.machines:
        scene.export(machine)


def later(**time: float) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


def test_points_have_to_be_there_and_young_enough(scene: Scene) -> None:
    scene.export("db")
    scene.export("web-1")
    answer = look(scene, "point-age", younger="1h")
    assert not answer.holds
    assert answer.seen.startswith("web-2: there is no machine 'web-2'")
    scene.export("web-2")
    answer = look(scene, "point-age", younger="1h")
    assert answer.holds
    assert "db: newest point db@1 is" in answer.seen
    answer = look(scene, "point-age", younger="1h", now=later(hours=3))
    assert not answer.holds
    assert "db: newest point db@1 is 3 h old, wanted: younger than 1 h" in answer.seen
    scene.export("db", seed=2)
    assert look(scene, "point-age", younger="1h", machines=["db"]).holds


def test_a_point_from_the_future_is_no_young_one(scene: Scene) -> None:
    scene.export("db")
    answer = look(scene, "point-age", younger="1h", machines=["db"], now=later(hours=-2))
    assert not answer.holds
    assert "ahead of the store's clock" in answer.seen


def test_a_point_has_to_have_been_found_good(scene: Scene) -> None:
    scene.export("db")
    asked: dict[str, Any] = {"machines": ["db"], "within": "2d"}
    answer = look(scene, "verified", **asked)
    assert (answer.holds, "db: no point was ever found good" in answer.seen) == (False, True)
    point = resolve(scene.bench.repository, PointName("db", None))
    record_verification(scene.bench.repository, point, "read")
    assert look(scene, "verified", **asked).holds
    assert "db@1 was found good by `read`" in look(scene, "verified", **asked).seen
    assert not look(scene, "verified", how="boot", **asked).holds
    answer = look(scene, "verified", now=later(days=3), **asked)
    assert not answer.holds
    assert "3 d ago, wanted: within 2 d" in answer.seen
    scene.export("db", seed=2)
    assert look(scene, "verified", **asked).holds
    answer = look(scene, "verified", newest=True, **asked)
    assert not answer.holds
    assert "the newest point, db@2, was never found good" in answer.seen
    forget(scene.bench.repository, point, reason="test")
    assert not look(scene, "verified", **asked).holds


def test_a_note_about_another_manifest_counts_for_nothing(scene: Scene) -> None:
    scene.export("db")
    scene.export("db", seed=2)
    repository = scene.bench.repository
    first, second = (resolve(repository, PointName("db", n)) for n in (1, 2))
    from dataclasses import replace

    record_verification(repository, replace(second, object_hash=first.object_hash), "read")
    assert not look(scene, "verified", machines=["db"], within="1d").holds


def test_a_run_does_not_wait_for_points_that_it_makes_itself(scene: Scene) -> None:
    scene.export("web-1")
    answer = look(scene, "target")
    assert answer.holds
    assert "db: it has no point yet" in answer.seen
    assert "web-1: simulated is ready" in answer.seen
    answer = look(scene, "delta", smaller="1GiB")
    assert not answer.holds
    assert f"db: there is no machine 'db' in {scene.bench.repository.store.name}; `failback schedule run" in answer.seen


def test_the_target_is_asked_for_every_machine(scene: Scene) -> None:
    export_all(scene)
    networks, scene.platform.networks = scene.platform.networks, type(scene.platform.networks)()
    answer = look(scene, "target")
    assert not answer.holds
    assert answer.seen.count("there is no network lan") == 3
    scene.platform.networks = networks
    answer = look(scene, "target")
    assert answer.holds
    assert "web-2: simulated is ready" in answer.seen


def test_what_is_left_to_move_is_forecast(scene: Scene) -> None:
    scene.export("db")
    answer = look(scene, "delta", smaller="64KiB", machines=["db"])
    assert not answer.holds
    assert "nothing is staged yet" in answer.seen
    assert "wanted: less than 64.0 KiB" in answer.seen
    assert look(scene, "delta", smaller="1GiB", machines=["db"]).holds
    point = resolve(scene.bench.repository, PointName("db", None))
    wanted = resolve_mapping(scene.plan.mapping, point.manifest, "simulated")
    bring_home(scene.site("db"), point, wanted, boot=False)
    answer = look(scene, "delta", smaller="64KiB", machines=["db"])
    assert answer.holds
    assert answer.seen == "db: 0 bytes to move for db@1 (since db@1)"


class Down(Layer):
    """Nothing is written, for the reason that a test gives."""

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        raise StoreUnavailable("the bucket is full of water", remedy="dry it")


def test_the_repository_has_to_take_what_is_written(scene: Scene) -> None:
    answer = look(scene, "repository")
    assert (answer.holds, "takes what is written" in answer.seen) == (True, True)
    assert look(scene, "repository").holds
    scene.bench = scene.bench.through(Down(scene.bench.store))
    with pytest.raises(StoreUnavailable, match="water"):
        look(scene, "repository")


def test_the_source_has_to_answer_for_every_machine(scene: Scene) -> None:
    answer = look(scene, "source")
    assert answer.holds
    assert answer.seen == "db: power on at the source; web-1: power on at the source; web-2: power on at the source"
    scene.source.power["db"] = "unknown"
    answer = look(scene, "source")
    assert (answer.holds, answer.seen) == (False, "db: power unknown at the source")
    scene.source.down = True
    answer = look(scene, "source", machines=["web-1"])
    assert (answer.holds, answer.seen) == (False, "web-1: the platform does not answer")


def test_a_flag_is_set_by_a_person(scene: Scene) -> None:
    scene.run = "shop-1"
    answer = look(scene, "flag", flag="go", question="did the insurer agree?")
    assert (answer.holds, answer.seen) == (
        False,
        "a person has to set flag go (did the insurer agree?): `failback run flag shop-1 go`",
    )
    scene.flags = frozenset({"go"})
    assert look(scene, "flag", flag="go").holds
    assert not look(scene, "flag", flag="gone").holds


def test_room_on_this_host_is_counted(scene: Scene, tmp_path: Path) -> None:
    assert look(scene, "space", free="1KiB").holds
    answer = look(scene, "space", free="9000TiB", path=str(tmp_path))
    assert not answer.holds
    assert answer.seen.startswith(f"{tmp_path}: ")
    assert "wanted: 8.79 PiB" in answer.seen
    answer = look(scene, "space", free="1KiB", path=str(tmp_path / "none"))
    assert (answer.holds, answer.seen) == (False, f"{tmp_path / 'none'} is not there")


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def made(text: str) -> str:
        path = tmp_path / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return made


def test_a_program_decides_by_its_end(
    scene: Scene, script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run = "shop-7"
    path = script('echo "$FAILBACK_PLAN $FAILBACK_RUN $1 ${AWS_SECRET_ACCESS_KEY:-none}"')
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    answer = look(scene, "command", argv=[path, "a b"])
    assert (answer.holds, answer.seen) == (True, f"{path} ended with 0: shop shop-7 a b none")
    answer = look(scene, "command", argv=[path, "x"], environment=["AWS_SECRET_ACCESS_KEY"])
    assert answer.seen == f"{path} ended with 0: shop shop-7 x ***"
    path = script("echo too early >&2; exit 3")
    answer = look(scene, "command", argv=[path])
    assert (answer.holds, answer.seen) == (False, f"{path} ended with 3: too early")
    path = script("exec sleep 60")
    answer = look(scene, "command", argv=[path], timeout="300ms")
    assert (answer.holds, answer.seen) == (False, f"{path} did not end within 0.3 s and was killed")
    answer = look(scene, "command", argv=["/nowhere/at/all"])
    assert not answer.holds
    assert "cannot be run" in answer.seen
    with pytest.raises(UsageError, match="NOT_THERE is not set"):
        look(scene, "command", argv=["true"], environment=["NOT_THERE"])


AT = {
    "monday noon": "2026-06-01T12:00+02:00",
    "monday night": "2026-06-01T23:30+02:00",
    "tuesday 2 o'clock": "2026-06-02T02:00+02:00",
    "tuesday 6 o'clock": "2026-06-02T06:00+02:00",
    "saturday 2 o'clock": "2026-06-06T02:00+02:00",
    "saturday night": "2026-06-06T23:30+02:00",
}
NIGHTS: dict[str, Any] = {"zone": "Europe/Berlin", "times": ["mon-fri 22:00-06:00"]}


@pytest.mark.parametrize(
    ("at", "settings", "seen"),
    [
        ("monday noon", {}, "the next window opens Mon 2026-06-01 22:00, in 10 h"),
        ("monday night", {}, "open for another 6 h 30 min"),
        ("tuesday 2 o'clock", {}, "open for another 4 h"),
        ("tuesday 6 o'clock", {}, "the next window opens Tue 2026-06-02 22:00, in 16 h"),
        ("saturday 2 o'clock", {}, "open for another 4 h"),  # it began on Friday
        ("saturday night", {}, "the next window opens Mon 2026-06-08 22:00"),
        ("monday night", {"without": ["2026-06-01"]}, "the next window opens Tue 2026-06-02 22:00"),
        ("tuesday 2 o'clock", {"without": ["2026-06-01"]}, "the next window opens Tue 2026-06-02 22:00"),
        ("tuesday 2 o'clock", {"without": ["2026-06-02"]}, "the next window opens Wed 2026-06-03 22:00"),
        ("monday night", {"without": ["2026-06-02"]}, "open for another 30 min"),
        ("monday night", {"only": ["2026-06-10..2026-06-11"]}, "the next window opens Wed 2026-06-10 22:00"),
        ("monday night", {"only": ["2020-06-10"]}, "no window opens"),
        ("monday night", {"remaining": "6h"}, "open for another 6 h 30 min"),
        ("monday night", {"remaining": "7h"}, "closes in 6 h 30 min, 7 h have to be left; the next window opens Tue"),
        ("monday night", {"remaining": "9h"}, "no window opens"),
        ("monday night", {"times": ["22:00-24:00", "00:00-04:00"]}, "open for another 4 h 30 min"),
        ("monday night", {"zone": "Asia/Tokyo"}, "it is Tue 2026-06-02 06:30 (Asia/Tokyo); the next window opens Tue"),
    ],
)
def test_windows_open_and_close_by_their_own_clock(scene: Scene, at: str, settings: dict[str, Any], seen: str) -> None:
    answer = look(scene, "window", now=datetime.fromisoformat(AT[at]).astimezone(UTC), **(NIGHTS | settings))
    assert seen in answer.seen
    assert answer.holds == ("open for another" in seen)


@pytest.mark.parametrize(
    ("night", "hours"), [("2026-03-28T23:00+01:00", 6), ("2026-10-24T23:00+02:00", 8), ("2026-06-06T23:00+02:00", 7)]
)
def test_a_window_has_its_wall_clock_times_when_clocks_are_set(scene: Scene, night: str, hours: int) -> None:
    now = datetime.fromisoformat(night).astimezone(UTC)
    answer = look(scene, "window", now=now, zone="Europe/Berlin", times=["23:00-06:00"])
    assert f"open for another {hours} h" in answer.seen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"times": ["8-9"]}, "is no window"),
        ({"times": ["mon-fry 08:00-09:00"]}, "has no days of the week"),
        ({"times": ["25:00-26:00"]}, "has no time of the day"),
        ({"times": ["08:00-08:00"]}, "begins when it ends"),
        ({"times": []}, "times"),
        ({"zone": "Moon/Sea"}, "is no time zone"),
        ({"zone": "../../etc/passwd"}, "is no time zone"),
        ({"without": ["24.12.2026"]}, "is no date"),
        ({"without": ["2026-12-24..2026-12-01"]}, "ends before it begins"),
    ],
)
def test_windows_that_cannot_be_meant_are_refused(scene: Scene, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        look(scene, "window", **settings)


def test_another_plan_has_to_have_come_home(scene: Scene) -> None:
    repository = scene.bench.repository
    assert look(scene, "run", plan="mail") == Answer(False, "plan mail was never run")
    journal = Journal(repository, "mail-20260601-120000-abcdef")
    journal.append(Started(plan="mail", version=1, digest="ab"))
    assert look(scene, "run", plan="mail") == Answer(False, "run mail-20260601-120000-abcdef is not over")
    journal.append(Finished(conductor=0, outcome="rolled back"))
    answer = look(scene, "run", plan="mail")
    assert not answer.holds
    assert "rolled back, wanted: committed" in answer.seen
    assert not look(scene, "run", plan="mail", outcome="rehearsed").holds
    journal = Journal(repository, "mail-20260602-120000-abcdef")
    journal.append(Started(plan="mail", version=2, digest="cd"))
    journal.append(Finished(conductor=0, outcome="committed"))
    answer = look(scene, "run", plan="mail")
    assert answer.holds
    assert "run mail-20260602-120000-abcdef ended" in answer.seen
    assert not look(scene, "run", plan="mail", within="1h", now=later(hours=2)).holds
    # A plan whose name begins the same is another plan.
    assert look(scene, "run", plan="mai") == Answer(False, "plan mai was never run")


def test_a_plan_cannot_wait_for_itself(scene: Scene) -> None:
    with pytest.raises(UsageError, match="waits for a run of its own"):
        condition_of(Condition(name="x", kind="run", settings={"plan": "shop"})).check(scene.plan)
