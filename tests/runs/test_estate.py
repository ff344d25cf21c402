"""The real thing: machines that run in QEMU come home to QEMU by way of a bucket, while a client outside writes."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers import Server

from importers.qemu.qmp import Qmp
from pipeline.cli import exitcodes
from pipeline.runs.fold import RunState
from runs.estate.estate import Estate
from runs.estate.machines import await_ready, power_off, power_on
from runs.estate.watcher import overlaps

PLANTED = 0.2
CONDITIONS = [
    {"name": "bucket", "kind": "repository"},
    {"name": "home is ready", "kind": "target"},
    {"name": "takeover answers", "kind": "source"},
    {"name": "go", "kind": "flag", "settings": {"flag": "go", "question": "do the users know?"}},
]
NIGHT = {"name": "night", "kind": "flag", "when": "cutover", "settings": {"flag": "night"}}


def all_done(state: RunState, estate: Estate, verb: str) -> bool:
    return all(state.done(f"{verb}/{machine}") for machine in estate.machines)


def plant_an_overlap(estate: Estate, machine: str) -> None:
    """A second one of that machine is alive for 200 ms, and the watcher sees it."""
    folder = estate.root / "second" / machine
    folder.mkdir(parents=True)
    shutil.copy(estate.folder(machine) / "made" / "system.raw", folder / "disk.raw")
    power_on(folder, folder / "disk.raw")
    try:
        await_ready(folder, database=False, beacon=estate.watcher.port)
        while len(estate.watcher.boots(machine)) < 2:
            time.sleep(0.05)
        with Qmp(folder) as qmp:
            qmp.execute("stop")
            time.sleep(2.0)
            estate.watcher.forget()
            time.sleep(1.0)
            assert estate.watcher.overlaps() == []
            qmp.execute("cont")
            time.sleep(PLANTED)
            qmp.execute("stop")
    finally:
        power_off(folder)
    time.sleep(1.0)
    found = estate.watcher.overlaps()
    assert {overlap.machine for overlap in found} == {machine}
    assert sum(overlap.end - overlap.begin for overlap in found) < 5 * PLANTED
    estate.watcher.forget()


@pytest.mark.slow
def test_an_estate_comes_home_without_a_gap_though_its_conductor_is_killed_again_and_again(
    tmp_path: Path, minio_endpoint: Server
) -> None:
    with Estate(tmp_path, minio_endpoint) as estate:
        plant_an_overlap(estate, "web-1")
        plan = estate.plan(
            conditions=[*CONDITIONS, NIGHT],
            rehearsal={"before_cutover": True},
            approvals={"cutover": True, "gate": False, "commit": True},
            limits={"catch_up": "1min"},
        )
        assert estate.failback("plan", "check", plan).code == exitcodes.OK

        started = estate.begun("run", "start", plan)
        estate.until(lambda state: state.conductor > 0, started)
        while "a person has to set flag go" not in estate.failback("run", "show", "shop").out:
            assert started.poll() is None, estate.log
            time.sleep(1.0)
        assert estate.failback("run", "flag", "shop", "go", "--by", "Ada").code == exitcodes.OK
        assert started.wait(900) == exitcodes.RUN_ASKS, estate.log
        assert "rehearse/shop: web-1: page: passed" in estate.log
        state = estate.state()
        assert state.met is not None
        assert all(answer.startswith("holds: ") for answer in state.met.values())
        assert state.done("rehearse/shop")
        assert estate.client.goes_on(estate.ports["takeover"])
        estate.check_one_side()

        # Its disks follow once more while it waits for the night.
        answer = estate.begun("run", "approve", "shop", "--by", "Ada")
        estate.until(lambda state: state.awaiting == "shop", answer)
        staged = max(ended for machine in estate.machines if (ended := state.effect(f"stage/{machine}").ended))
        estate.until(lambda _state: datetime.now(UTC) - staged > timedelta(seconds=62), answer)
        assert estate.failback("run", "flag", "shop", "night", "--by", "Ada").code == exitcodes.OK
        estate.until(lambda state: all_done(state, estate, "claim"), answer)
        answer.kill()
        answer.wait()
        state = estate.state()
        for machine in estate.machines:
            [*_, caught] = state.catch_ups(machine)
            assert caught.result["sequence"] > state.effect(f"stage/{machine}").result["sequence"]

        # After the last points; between lock and boot; after a boot.
        estate.killed_when(lambda s: all_done(s, estate, "final"), "run", "conduct", "shop")
        estate.killed_when(lambda s: all_done(s, estate, "lock"), "run", "conduct", "shop")
        assert not any(estate.state().began(f"boot/{machine}") for machine in estate.machines)
        estate.killed_when(lambda s: s.done("boot/db"), "run", "conduct", "shop")
        assert estate.failback("run", "conduct", "shop").code == exitcodes.RUN_ASKS

        assert estate.client.goes_on(estate.ports["home"])
        assert estate.failback("run", "approve", "shop", "--by", "Ada").code == exitcodes.OK
        assert estate.state().outcome == "committed"
        assert estate.client.goes_on(estate.ports["home"])
        estate.check_kept("home")
        estate.check_one_side()
        assert all(len(estate.watcher.boots(machine)) == 2 for machine in estate.machines)


@pytest.mark.slow
def test_an_estate_that_is_not_right_at_home_works_on_where_it_was(tmp_path: Path, minio_endpoint: Server) -> None:
    with Estate(tmp_path, minio_endpoint) as estate:
        # The database is not right: back by itself.
        plan = estate.plan(failing=["db"], on_failure="rollback")
        assert estate.failback("run", "start", plan).code == exitcodes.RUN_UNDONE
        assert estate.state().outcome == "rolled back"
        assert estate.client.goes_on(estate.ports["takeover"])
        estate.check_kept("takeover")
        estate.check_one_side()

        # The second wave is not right: held, and a person goes back.
        plan = estate.plan(failing=["web-1"])
        assert estate.failback("run", "start", plan).code == exitcodes.RUN_ASKS
        state = estate.state()
        assert state.stand is not None
        assert state.stand.state == "held"
        assert state.done("verify/db")
        assert "run split" in state.stand.remedy
        assert estate.failback("run", "rollback", "shop", "--by", "Ada").code == exitcodes.RUN_UNDONE
        assert estate.client.goes_on(estate.ports["takeover"])
        estate.check_kept("takeover")
        estate.check_one_side()

        # Again; but a person lets it stay where it was, and the database come home.
        assert estate.failback("run", "start", plan).code == exitcodes.RUN_ASKS
        refused = estate.failback("run", "split", "shop", "web-1", "--by", "Ada")
        assert refused.code == exitcodes.USAGE
        assert "web-1 (takeover) needs db (home)" in refused.err
        split = estate.failback("run", "split", "shop", "web-1", "--across", "--by", "Ada")
        assert split.code == exitcodes.RUN_UNDONE
        assert estate.state().outcome == "partly committed"
        assert estate.client.goes_on(estate.ports["home"])
        estate.check_kept("home")
        estate.check_one_side()
        # Of each three at the takeover site but the database's last, and what was tried at home.
        assert estate.watcher.until_boots("web-1", 6)
        assert estate.watcher.until_boots("db", 6)
        estate.check_one_side()


def test_a_watcher_tells_one_boot_after_another_from_two_at_once() -> None:
    first, second = [(n * 0.05, "a") for n in range(40)], [(5 + n * 0.05, "b") for n in range(40)]
    assert overlaps("db", first + second) == []
    planted = sorted([*first, *((0.5 + n * 0.05, "b") for n in range(5))])
    [found] = overlaps("db", planted)
    assert found.boots == ("a", "b")
    assert found.end - found.begin == pytest.approx(0.2)
    assert overlaps("db", sorted([*first, (1.01, "b")])) != []
