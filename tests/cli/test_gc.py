"""`gc`, `forget` with a policy, `unforget`, `hold` and `release` as users meet them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Run


def grow_old(repository: Path, days: float) -> None:
    """Everything in a directory repository was written so long ago."""
    for path in repository.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * 86400
            os.utime(path, (then, then))


@pytest.fixture
def aged(repository: Path, disk: Path, failback: Run, change: Callable[[Path, int], None]) -> Path:
    """Four points, the last one full and tagged."""
    for turn in range(3):
        assert failback("export", "vm", "--disk", disk, "--tag", "job=nightly").code == 0
        change(disk, 2 * turn)
    assert failback("export", "vm", "--disk", disk, "--full").code == 0
    return repository


def test_space_is_freed_a_day_after_points_were_forgotten(
    aged: Path, disk: Path, failback: Run, tmp_path: Path
) -> None:
    done = failback("--json", "forget", "vm", "--keep-last", 1, "--dry-run").result
    assert [p["action"] for p in done["points"]] == ["forget"] * 3 + ["keep"]
    assert failback("forget", "vm", "--keep-last", 1).code == 0
    grow_old(aged, 0.5)
    assert failback("--json", "gc", "--apply").result["freed"] == 0
    grow_old(aged, 1)
    plan = failback("--json", "gc").result
    assert not plan["applied"]
    assert plan["plan"]["packs"]["doomed"]["bytes"] > 64 << 10
    shown = failback("gc")
    assert "DOOMED" in shown.out
    assert "nothing was deleted" in shown.out
    freed = failback("--json", "gc", "--apply").result["freed"]
    assert freed >= plan["plan"]["packs"]["doomed"]["bytes"]
    assert failback("--json", "gc", "--apply").result["freed"] == 0
    assert failback("verify", "vm", "--read").code == 0
    out = tmp_path / "out"
    assert failback("import", "vm", "--to", "files", "--out", out).code == 0
    assert next(out.glob("*.raw")).read_bytes() == disk.read_bytes()


def test_a_policy_by_tag_and_for_all_machines(aged: Path, disk: Path, failback: Run) -> None:
    assert failback("export", "other", "--disk", disk).code == 0
    done = failback("--json", "forget", "--all-machines", "--keep-last", 1, "--tag", "job=nightly", "--dry-run").result
    assert [p["point"] for p in done["points"] if p["action"] == "forget"] == ["vm@1", "vm@2"]
    table = failback("forget", "vm", "--keep-last", 1, "--dry-run").out
    assert "newest" in table
    assert "job=nightly" in table


def test_the_last_verified_point_and_held_ones_survive_every_policy(aged: Path, failback: Run) -> None:
    assert failback("verify", "vm@2", "--read").code == 0
    assert failback("hold", "vm@3", "--reason", "the auditors want it").code == 0
    done = failback("--json", "forget", "vm", "--keep-last", 1).result
    assert [p["point"] for p in done["points"] if p["action"] == "forget"] == ["vm@1"]
    refused = failback("forget", "vm@3", "--reason", "old")
    assert refused.code == 2
    assert "the auditors want it" in refused.err
    assert "release vm manual" in refused.err
    wrong = failback("release", "vm@1")
    assert (wrong.code, "give its name alone: failback release vm" in wrong.err) == (2, True)
    assert failback("release", "vm").code == 0
    assert failback("release", "vm").code == 3
    assert failback("forget", "vm@3", "--reason", "old").code == 0


def test_a_slip_is_undone(aged: Path, failback: Run) -> None:
    assert failback("forget", "vm@2", "--reason", "a slip").code == 0
    done = failback("--json", "unforget", "vm@2")
    assert done.code == 0
    assert done.result["point"] == "vm@5"
    assert failback("verify", "vm@5", "--read").code == 0
    assert failback("unforget", "vm@3").code == 3
    assert failback("unforget", "vm").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("gc", "--grace", "5min"),
        ("gc", "--grace", "soon"),
        ("forget", "vm", "--reason", "x"),
        ("forget", "--keep-last", "1"),
        ("forget", "vm", "--all-machines", "--keep-last", "1"),
        ("forget", "vm", "--dry-run", "--reason", "x"),
        ("forget", "vm@1", "--keep-last", "1"),
        ("forget", "vm@1"),
        ("forget", "vm", "--keep-last", "1", "--tag", "nightly"),
        ("forget", "vm@1", "--missing", "--reason", "it can be read"),
        ("hold", "vm", "--reason", " "),
        ("hold", "vm", "--reason", "x", "--as", "a/b"),
    ],
)
def test_what_makes_no_sense_is_refused(aged: Path, failback: Run, arguments: tuple[str, ...]) -> None:
    before = sorted(p for p in aged.rglob("*") if p.is_file())
    done = failback(*arguments)
    assert done.code == 2, done
    assert len(done.err.splitlines()) >= 2 or "Usage" in done.err
    assert sorted(p for p in aged.rglob("*") if p.is_file()) == before


def test_a_missing_manifest_is_named_with_its_remedy(aged: Path, failback: Run) -> None:
    (aged / "manifests/vm/0000000002").unlink()
    done = failback("gc", "--apply")
    assert done.code == 5
    assert "manifests/vm/0000000002" in done.err
    assert "--missing" in done.err
    assert failback("forget", "vm@2", "--missing", "--reason", "a disk died").code == 0
    assert failback("gc", "--apply").code == 0


def test_an_export_meanwhile_is_named_as_what_holds_space_back(aged: Path, failback: Run) -> None:
    session = aged / "sessions/vm/0000000004-0001/session"
    assert session.exists()
    later = aged / "sessions/vm/0000000005-0001/session"
    later.parent.mkdir(parents=True)
    later.write_bytes(session.read_bytes())
    done = failback("gc")
    assert done.code == 5, "a session that cannot be read names what its writer needs no more"
    assert "sessions/vm/0000000005-0001/session" in done.err
    then = time.time() - 2 * 86400
    os.utime(later, (then, then))
    assert "vm@5" in failback("gc").out


def test_a_janitor_collects_without_reading_any_data_and_an_exporter_does_not(
    aged: Path, failback: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {role: tmp_path / role for role in ("janitor", "exporter")}
    for role, path in keys.items():
        assert failback("key", "add", "--role", role, "--label", "cron", "--key-file", path).code == 0
    monkeypatch.setenv("FAILBACK_KEY_FILE", str(keys["exporter"]))
    assert failback("gc").code == 13
    assert failback("forget", "vm", "--keep-last", 1).code == 13
    monkeypatch.setenv("FAILBACK_KEY_FILE", str(keys["janitor"]))
    assert failback("forget", "vm", "--keep-last", 1).code == 0
    grow_old(aged, 2)
    done = failback("--json", "gc", "--apply")
    assert done.code == 0, done
    assert done.result["freed"] > 0


def test_a_point_that_is_on_its_way_is_not_given_up_for_lost(aged: Path, disk: Path, failback: Run) -> None:
    """Its export would end well, and the point would be forgotten before it was there."""
    done = failback("forget", "vm@5", "--missing", "--reason", "a slip of the finger")
    assert done.code == 2
    assert "never committed" in done.err
    assert failback("export", "vm", "--disk", disk).code == 0
    assert failback("verify", "vm@5").code == 0
    (aged / "manifests" / "vm" / "0000000005").unlink()
    assert failback("forget", "vm@5", "--missing", "--reason", "a disk died").code == 0


def test_a_grace_that_is_too_short_is_said_as_people_write_it(aged: Path, failback: Run) -> None:
    refused = failback("gc", "--grace", "90s")
    assert refused.code == 2
    assert "a grace of 1 min 30 s is too short" in refused.err
    assert "1 h is the least; the default is 1 d" in refused.err
