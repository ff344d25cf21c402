"""Schedules on the command line: written, shown, run and taken away; and what the clock calls."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Run
from pipeline.keys.locks import KeyFile, Lock
from pipeline.repository import Repository
from pipeline.store.directory import DirectoryStore

TEXT = """
name: shop
target: qemu
source: {kind: pretended}
machines: {db: {}}
groups: [{name: shop, waves: [[db]]}]
schedule: {export: hourly, scrub: Sun 03:00}
"""


@pytest.fixture(autouse=True)
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of the name `pretended` is installed."""
    folder = tmp_path / "installed" / "pretended-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pretended\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[failback.sources]\npretended = plans.conftest:SimulatedSource\n")
    monkeypatch.syspath_prepend(str(folder.parent))


@pytest.fixture
def plan(repository: Path, tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(TEXT)
    return path


def test_timers_are_written_listed_and_removed(plan: Path, failback: Run, tmp_path: Path) -> None:
    units = tmp_path / "units"
    shown = failback("schedule", "install", plan, "--folder", units, "--print")
    assert "OnCalendar=Sun 03:00" in shown.out
    assert not units.exists()
    assert "no plan yet" in failback("plan", "list").out
    done = failback("--json", "schedule", "install", plan, "--folder", units)
    assert (done.code, done.result["jobs"]) == (0, {"export": "hourly", "scrub": "Sun 03:00"})
    assert len(done.result["written"]) == len(list(units.iterdir())) == 4
    listed = failback("--json", "schedule", "list", "--folder", units).result["schedule"]
    assert [(entry["job"], entry["calendar"], entry["last"]) for entry in listed] == [
        ("export", "hourly", None),
        ("scrub", "Sun 03:00", None),
    ]
    plan.write_text(TEXT.replace("scrub: Sun 03:00", "gc: daily"))
    assert failback("schedule", "install", plan, "--folder", units).code == 0
    assert sorted({path.name.split("-")[2] for path in units.iterdir()}) == ["export", "gc"]
    assert failback("schedule", "remove", "shop", "--job", "gc", "--folder", units).code == 0
    assert len(list(units.iterdir())) == 2
    assert failback("schedule", "remove", "shop", "--folder", units).code == 0
    assert list(units.iterdir()) == []
    assert failback("schedule", "remove", "shop", "--folder", units).code == 3


def test_a_plan_without_a_schedule_or_with_a_wrong_one_is_refused(plan: Path, failback: Run, tmp_path: Path) -> None:
    plan.write_text(TEXT.replace("schedule: {export: hourly, scrub: Sun 03:00}", ""))
    assert "has no schedule" in failback("schedule", "install", plan, "--folder", tmp_path).err
    plan.write_text(TEXT.replace("hourly", "now and then"))
    done = failback("schedule", "install", plan, "--folder", tmp_path)
    assert (done.code, "schedule.export: 'now and then'" in done.err) == (2, True)


def test_a_job_prints_one_line_and_is_remembered(plan: Path, failback: Run, tmp_path: Path) -> None:
    units = tmp_path / "units"
    failback("schedule", "install", plan, "--folder", units)
    done = failback("--json", "--quiet", "schedule", "run", "shop", "scrub")
    assert (done.code, len(done.lines)) == (0, 1)
    assert (done.result["ran"], done.result["plan"], done.result["result"]["command"]) == (True, "shop@1", "scrub")
    listed = failback("--json", "schedule", "list", "--folder", units).result["schedule"]
    assert listed[1]["last"]["exit_code"] == 0


def test_a_job_whose_last_call_still_works_is_passed_over(plan: Path, failback: Run, tmp_path: Path) -> None:
    failback("plan", "put", plan)
    id_ = Repository.open(DirectoryStore(tmp_path / "repository"), _locks(tmp_path)).document.id
    lock = tmp_path / "state" / "schedule" / f"failback-scrub-{id_[:8]}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 7")
        file.flush()
        done = failback("--json", "--quiet", "schedule", "run", "shop", "scrub")
    assert (done.code, done.result["ran"], done.result["why"]) == (0, False, "the last one still works: process 7")


def test_a_job_that_fails_says_so_by_its_code(plan: Path, failback: Run) -> None:
    assert failback("schedule", "run", "shop", "scrub").code == 3
    failback("plan", "put", plan)
    assert failback("schedule", "run", "shop", "party").code == 2


def test_the_crontab_is_used_where_systemd_does_not_run(
    plan: Path, failback: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, table = tmp_path / "bin" / "crontab", tmp_path / "table"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nif [ $1 = -l ]; then cat {table}; else cat >{table}; fi\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr("pipeline.schedule.systemd.running", lambda: False)
    table.write_text("5 4 * * * backup\n")
    assert failback("schedule", "install", plan).code == 0
    lines = table.read_text().splitlines()
    assert lines[0] == "5 4 * * * backup"
    assert len(lines) == 5
    assert lines[2].startswith("0 * * * * ")
    assert "FAILBACK_KEY_FILE=" in lines[2]
    assert failback("--json", "schedule", "install", plan).result["written"] == []
    assert [e["where"] for e in json.loads(failback("--json", "schedule", "list").out)["schedule"]] == ["crontab"] * 2
    assert failback("schedule", "remove", "shop").code == 0
    assert table.read_text() == "5 4 * * * backup\n"


def _locks(tmp_path: Path) -> Callable[[], list[Lock]]:
    return lambda: [KeyFile(tmp_path / "key")]
