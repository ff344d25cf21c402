"""Words of people, and a new controller, through the command line: processes on a repository in a directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import exitcodes
from pipeline.errors import TargetBusy
from runs.town import Town, until

Make = Callable[..., Town]
REFUSED = 9


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Make]:
    made: list[Town] = []

    def make(*machines: str, **changes: Any) -> Town:
        made.append(Town(tmp_path, *machines, **changes))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_words_are_refused_when_the_run_has_moved_on(town: Make) -> None:
    t = town(conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}])
    run = t.begin()
    waits = t.result("run", "conduct", run, "--no-wait")
    assert waits[0] == exitcodes.RUN_WAITS
    seen = waits[1]["entries"]
    assert t.result("run", "hold", run, "--reason", "lunch")[0] == 0
    code, result = t.result("run", "flag", run, "go", "--expect", seen, "--no-conduct")
    assert code == REFUSED
    assert "has moved on" in result["error"]["message"]
    assert f"you saw entry {seen}" in result["error"]["message"]
    assert "run show" in result["error"]["remedy"]
    code, result = t.result("run", "flag", run, "go", "--expect", seen + 1, "--by", "ada", "--no-conduct")
    assert code == 0
    assert t.entries(run, "decided")[-1] | {"time": ""} == t.entries(run, "decided")[-1] | {"by": "ada", "time": ""}
    code, held = t.result("run", "conduct", run)
    assert code == exitcodes.RUN_ASKS
    assert "lunch" in held["state"]
    code, asked = t.result("run", "retry", run)
    assert code == exitcodes.RUN_ASKS
    assert asked["state"] == "asks for approval: commit/all"
    code, result = t.result("run", "rollback", run)
    assert code == REFUSED
    assert "--discard" in result["error"]["message"]
    code, result = t.result("run", "cancel", run)
    assert code == REFUSED
    assert "touched already" in result["error"]["message"]
    assert t.result("run", "approve", run, "--expect", asked["entries"])[0] == 0
    assert t.state(run) == "committed"
    code, result = t.result("run", "hold", run)
    assert code == REFUSED
    assert "is over" in result["error"]["message"]


def test_a_new_controller_takes_over_from_the_repository_alone(town: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    t = town("db", "web")
    run = t.begin()
    monkeypatch.setenv("SHED_DIES_AT", "boot")
    assert t.failback("run", "conduct", run).returncode == -9
    monkeypatch.delenv("SHED_DIES_AT")
    shutil.rmtree(t.root / "host")
    done = t.failback("run", "adopt", run, host="fresh")
    assert done.returncode == exitcodes.RUN_ASKS, done.stderr
    assert "asks for approval: commit/all" in done.stdout, done.stdout
    found = done.stdout.split("\n\n")[0]
    assert "conducted before by process" in found
    assert "db: home-provisional (epoch 2); takeover site: off, locked; shed: layered" in found
    assert "web: moving (epoch 1); takeover site: off, locked; shed: staged" in found
    assert "done again: boot/db" in found
    assert t.home() == 2
    assert not any(t.takeover().values())
    assert t.result("run", "approve", run, host="fresh")[0] == 0
    assert t.state(run) == "committed"


def test_nobody_takes_over_from_one_that_is_alive(town: Make) -> None:
    t = town()
    run = t.begin()
    t.stops_at("db", "quiesce")
    t.serve()
    until(lambda: t.reached("db"), why=lambda: t.said(0))
    code, result = t.result("run", "adopt", run, host="fresh")
    assert code == REFUSED
    assert "is conducted by" in result["error"]["message"]


def test_a_machine_that_came_home_is_given_up_only_when_home_is_off_or_vouched_for(town: Make) -> None:
    t = town()
    run = t.begin()
    assert t.result("run", "conduct", run)[0] == exitcodes.RUN_ASKS
    code, result = t.result("run", "reown", "db", "--reason", "flood")
    assert code == REFUSED
    assert "run rollback" in result["error"]["remedy"]
    assert t.result("run", "approve", run)[0] == 0

    for gives_up in (["stop", "db", "--to", "shed", "--drop"], ["clean", "db", "--to", "shed", "--all"]):
        code, result = t.result(*gives_up)
        assert (code, "--force" in result["error"]["remedy"]) == (TargetBusy.exit_code, True), result
        assert f"came home for good by run {run}" in result["error"]["message"]
    for extra in ([], ["--override"]):  # nothing overrides what is seen
        code, result = t.result("run", "reown", "db", "--reason", "flood", *extra)
        assert (code, "runs at shed" in result["error"]["message"]) == (REFUSED, True)
    [running] = (t.root / "shed").glob("*/on")
    running.unlink()
    running.parent.rename(t.root / "flooded")
    code, result = t.result("run", "reown", "db", "--reason", "flood")
    assert code == REFUSED
    assert "nothing proves" in result["error"]["message"]
    (t.root / "flooded").rename(running.parent)
    code, result = t.result("run", "reown", "db", "--reason", "flood")
    assert code == 0
    assert (result["side"], result["epoch"]) == ("takeover", 4)
    assert result["proof"] == {"reason": "flood", "seen": "shed says that it is off"}
    code, result = t.result("run", "reown", "db", "--reason", "flood")
    assert code == REFUSED
    assert "already" in result["error"]["message"]


def test_who_vouches_for_home_is_written_down(town: Make) -> None:
    t = town()
    run = t.begin()
    t.result("run", "conduct", run)
    assert t.result("run", "approve", run)[0] == 0
    shutil.rmtree(t.root / "shed")
    code, result = t.result("run", "reown", "db", "--reason", "flood", "--override")
    assert code == 0
    assert result["proof"] == {"reason": "flood", "seen": "shed shows no such machine", "override": True}
    # It comes home again.
    for name in ("locked", "quiet"):
        (t.folder("db") / name).unlink()
    (t.folder("db") / "on").touch()
    code, result = t.result("run", "start", t.plan)
    assert code == exitcodes.RUN_ASKS, result
    assert t.home() == 1


def test_a_run_whose_journal_is_damaged_is_listed_with_the_others(town: Make) -> None:
    t = town()
    run = t.begin()
    other = run[:-6] + "000000"
    journal = t.root / "repository" / "runs" / run / "journal"
    shutil.copytree(journal.parent, t.root / "repository" / "runs" / other)
    code, result = t.result("run", "list")
    assert code == exitcodes.DAMAGED
    states = {shown["run"]: shown["state"] for shown in result["runs"]}
    assert states[run] == "waits for its conditions"
    assert "not to be read" in states[other]
