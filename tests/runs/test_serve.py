"""`failback run serve`: real processes that look after runs, are killed, and lose their database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runs.postgres import Postgres, programs, run_postgres
from runs.town import Town, until

Make = Callable[..., Town]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Make]:
    made: list[Town] = []

    def make(*machines: str, **changes: Any) -> Town:
        made.append(Town(tmp_path, *machines, **changes))
        return made[-1]

    yield make
    for one in made:
        one.end()


def home_once(t: Town, run: str) -> None:
    """One cutover, to the end, with nothing done by two."""
    assert t.state(run) == "committed"
    assert not any(t.takeover().values())
    assert t.home() == len(t.machines)
    assert not any((t.folder(m) / "starts").exists() for m in t.machines)
    for machine in t.machines:
        done = [e for e in t.entries(run, "ended") if e["done"] and e["effect"] == f"own/{machine}"]
        assert [e["result"]["epoch"] for e in done] == [2]
    leases = t.root / "repository" / "leases"
    assert len([path for path in leases.rglob("*") if path.is_file()]) == 3 * len(t.machines)


def asked(t: Town, run: str) -> bool:
    return any(e["kind"] == "asked" for e in t.entries(run))


def test_a_run_is_conducted_by_whoever_serves_and_goes_on_when_a_person_decides(town: Make) -> None:
    t = town()
    run = t.begin()
    server = t.serve()
    until(lambda: asked(t, run), why=lambda: t.said(0))
    assert t.failback("run", "approve", run, "--no-conduct").returncode == 0
    until(lambda: t.state(run) == "committed", why=lambda: t.said(0))
    home_once(t, run)
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 128 + signal.SIGTERM
    assert "goes on, here or on any other host" in t.said(0)


@pytest.mark.parametrize("verb", ["before_read", "lock"])
def test_one_conducts_and_the_other_goes_on_when_it_is_killed(town: Make, verb: str) -> None:
    t = town()
    run = t.begin()
    t.stops_at("db", verb)
    t.serve()
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    t.serve()
    until(lambda: "standing by" in t.said(1), why=lambda: t.said(1))
    assert "is looked after" not in t.said(1)
    os.killpg(t.servers[0].pid, signal.SIGKILL)
    t.servers[0].wait()
    t.stops_at("db", "nothing")
    until(lambda: asked(t, run), why=lambda: t.said(1))
    assert t.failback("run", "approve", run, "--no-conduct").returncode == 0
    until(lambda: t.state(run) == "committed", why=lambda: t.said(1))
    home_once(t, run)
    why = [e["why"] for e in t.entries(run, "taken")]
    assert any("is dead" in text for text in why), why


@pytest.mark.parametrize("verb", ["before_read", "quiesce", "lock", "retire"])
def test_a_database_that_is_deleted_at_any_step_loses_nothing(town: Make, verb: str) -> None:
    t = town(approvals={"cutover": False, "commit": False}, commit={"after": "1s", "green": 1, "every": "1s"})
    run = t.begin()
    t.stops_at("db", verb)
    t.serve()
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    for path in (t.root / "host" / "wake").glob("*"):
        path.unlink()
    t.stops_at("db", "nothing")
    until(lambda: t.state(run) == "committed", why=lambda: t.said(0))
    home_once(t, run)
    second = t.result("run", "start", t.plan, "--detach")[1]["run"]
    until(lambda: f"{second}: is looked after" in t.said(0), why=lambda: t.said(0))
    until(lambda: len(t.entries(second)) > 1, why=lambda: t.said(0))


def test_one_that_sleeps_is_replaced_and_does_not_wake_up_into_the_work_of_another(town: Make) -> None:
    t = town()
    run = t.begin()
    t.stops_at("db", "lock")
    first = t.serve()
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    t.serve()
    until(lambda: "standing by" in t.said(1), why=lambda: t.said(1))
    first.send_signal(signal.SIGSTOP)
    t.stops_at("db", "nothing")
    until(lambda: asked(t, run), why=lambda: t.said(1))
    assert t.failback("run", "approve", run, "--no-conduct").returncode == 0
    until(lambda: t.state(run) == "committed", why=lambda: t.said(1))
    home_once(t, run)
    assert first.wait(10) == -signal.SIGKILL
    assert any("gave no sign" in e["why"] and "was ended" in e["why"] for e in t.entries(run, "taken"))


def test_a_run_whose_journal_is_damaged_does_not_keep_the_others_waiting(town: Make) -> None:
    t = town(approvals={"cutover": True, "commit": True})
    run = t.begin()
    journal = t.root / "repository" / "runs" / "lost-20260101-000000-abcdef" / "journal"
    journal.mkdir(parents=True)
    (journal / "0000000002").write_bytes(b"the first is gone")
    t.serve()
    until(lambda: asked(t, run), why=lambda: t.said(0))
    assert t.said(0).count("0000000001 is missing") == 1


def test_no_other_command_imports_what_only_this_one_needs() -> None:
    look = "import sys, pipeline.cli.main, pipeline.cli.run, pipeline.runs.wake; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert "pipeline.runs.wake" in found
    assert not {"dbos", "sqlalchemy", "psycopg"} & set(found)


def test_two_hosts_with_a_database_each_do_not_conduct_one_run_twice(town: Make) -> None:
    t = town()
    run = t.begin()
    t.stops_at("db", "quiesce")
    t.serve(host="host")
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    t.serve(host="another")
    until(lambda: "is conducted by" in t.said(1), why=lambda: t.said(1))
    t.stops_at("db", "nothing")
    until(lambda: asked(t, run), why=lambda: t.said(0))
    assert t.failback("run", "approve", run, "--no-conduct").returncode == 0
    until(lambda: t.state(run) == "committed", why=lambda: t.said(0))
    home_once(t, run)


def test_while_conditions_are_waited_for_the_journal_does_not_grow(town: Make) -> None:
    t = town(conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}])
    run = t.begin()
    t.serve()

    def shown() -> str:
        return t.failback("run", "show", run).stdout

    until(lambda: "looked after by" in shown(), why=lambda: t.said(0) + shown())
    assert "waiting: a person has to set flag go" in shown()
    assert [e["kind"] for e in t.entries(run)] == ["started"]
    assert t.failback("run", "flag", run, "go", "--no-conduct").returncode == 0
    until(lambda: asked(t, run), why=lambda: t.said(0))


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A short name: a socket's is at most 107 characters long. Everybody may enter: its server is another user's."""
    with tempfile.TemporaryDirectory(prefix="failback-") as folder:
        Path(folder).chmod(0o755)
        with run_postgres(Path(folder) / "pg") as server:
            yield server


@pytest.mark.skipif(programs() is None, reason="PostgreSQL's server is not installed")
def test_on_postgresql_one_is_active_and_the_other_goes_on_when_it_is_killed(town: Make, postgres: Postgres) -> None:
    t = town()
    run = t.begin()
    t.stops_at("db", "lock")
    t.serve("--database", postgres.url, host="one")
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    t.serve("--database", postgres.url, host="two")
    until(lambda: "standing by" in t.said(1), why=lambda: t.said(1))
    os.killpg(t.servers[0].pid, signal.SIGKILL)
    t.servers[0].wait()
    t.stops_at("db", "nothing")
    until(lambda: asked(t, run), why=lambda: t.said(1))
    assert t.failback("run", "approve", run, "--no-conduct").returncode == 0
    until(lambda: t.state(run) == "committed", why=lambda: t.said(1))
    home_once(t, run)


@pytest.mark.skipif(programs() is None, reason="PostgreSQL's server is not installed")
def test_what_is_under_way_goes_on_while_postgresql_is_away_and_the_rest_when_it_is_back(
    town: Make, postgres: Postgres
) -> None:
    t = town()
    run = t.begin()
    t.stops_at("db", "lock")
    t.serve("--database", postgres.url)
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    postgres.stop()
    t.stops_at("db", "nothing")
    until(lambda: asked(t, run), why=lambda: t.said(0))
    postgres.start()
    assert t.failback("run", "approve", run, "--no-conduct").returncode == 0
    until(lambda: t.state(run) == "committed", seconds=150, why=lambda: t.said(0))
    home_once(t, run)
