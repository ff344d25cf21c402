"""Commands that bring machines home, with the importer and the hook of a package that this repository does not know."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from plugin.install import install

from cli.conftest import Done, Run, command
from pipeline.cli import exitcodes
from pipeline.verify.hook import passed
from pipeline.verify.hooks.console import ConsoleHook

HARDWARE = ("--nic", "network=old", "--memory", "512M", "--cpus", "2")
MAP = """
networks: {"*": garden}
options: {shed: {colour: green}}
"""


@pytest.fixture
def shed(repository: Path, disk: Path, tmp_path: Path, failback: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package is installed, a machine `web` exported once. The shed's folder."""
    site = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    assert failback("export", "web", "--disk", disk, *HARDWARE).code == 0
    (tmp_path / "map.yaml").write_text(MAP)
    return tmp_path / "state" / "targets" / "shed"


@pytest.fixture
def bring(shed: Path, tmp_path: Path, failback: Run) -> Run:
    """`failback import web --to shed --map map.yaml ...`"""
    return lambda *more: failback("import", "web", "--to", "shed", "--map", tmp_path / "map.yaml", *more)


def machines(shed: Path, name: str = "machine.json") -> list[Path]:
    return sorted(shed.glob(f"*/{name}"))


def test_a_machine_is_built_and_off_unless_something_is_to_be_seen_of_it(bring: Run, shed: Path) -> None:
    done = bring()
    assert done.code == 0, done.err
    assert "web is built and off at shed" in done.out
    assert len(machines(shed)) == 1
    assert machines(shed, "on") == []
    assert "web runs at shed" in bring("--boot").out
    assert len(machines(shed, "on")) == 1


def test_with_checks_one_command_ends_with_a_machine_that_runs_and_is_verified(
    bring: Run, shed: Path, tmp_path: Path
) -> None:
    checks = tmp_path / "checks.yaml"
    checks.write_text("checks:\n  - {name: up, hook: console, settings: {text: 'login:'}}\n")
    picture, junit = tmp_path / "console.png", tmp_path / "junit.xml"
    done = bring("--checks", checks, "--hook", "door:web", "--picture", picture, "--junit", junit)
    assert done.code == 0, done.err
    assert "web@1 is verified" in done.out
    assert "web is at the door, in company" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    cases = {case.get("name"): case for case in ElementTree.parse(junit).iter("testcase")}
    assert cases.keys() >= {"up", "door:web"}
    assert len(machines(shed, "on")) == 1


def test_a_failed_check_stops_the_machine_and_is_told_to_cron(bring: Run, shed: Path, tmp_path: Path) -> None:
    done = bring("--hook", "door:mallory")
    assert done.code == exitcodes.NOT_VERIFIED == 12
    assert "web is at the door, not mallory" in done.out
    assert "was switched off again" in done.out
    assert machines(shed, "on") == []
    assert len(machines(shed)) == 1
    quiet = bring("--hook", "door:mallory", "--quiet")
    assert (quiet.code, quiet.out) == (12, "")
    assert "web@1 is not verified: door:mallory: failed" in quiet.err
    assert bring("--hook", "door:mallory", "--keep-running").code == 12
    assert len(machines(shed, "on")) == 1


def test_the_result_says_where_the_time_went(bring: Run) -> None:
    tried = bring("--rehearse", "--hook", "door:web", "--json").result
    assert list(tried["steps"]) == ["start", "preflight", "find", "stage", "build", "boot", "checks", "drop"]
    done = bring("--hook", "door:web", "--json").result
    assert list(done["steps"]) == ["start", "preflight", "find", "stage", "build", "boot", "checks"]
    assert 0 < sum(done["steps"].values()) <= done["seconds"] + 0.01


def test_the_result_is_one_json_object(bring: Run) -> None:
    result = bring("--hook", "door:web", "--json").result
    assert (result["ok"], result["exit_code"], result["target"]) == (True, 0, "shed")
    assert result["machine"] == {"name": "web", "purpose": "production", "running": True, "booted": True}
    assert result["checks"]["verified"] is True
    assert [disk["mode"] for disk in result["disks"]] == ["full"]
    again = bring("--hook", "door:mallory", "--json").result
    assert (again["ok"], again["exit_code"], again["machine"]["running"]) == (False, 12, False)


def test_a_rehearsal_leaves_the_disks_and_a_later_point_moves_only_the_difference(
    bring: Run, shed: Path, disk: Path, failback: Run, change: Callable[[Path, int], None]
) -> None:
    done = bring("--rehearse", "--hook", "door:web")
    assert done.code == 0, done.err
    assert "web is at the door, alone" in done.out
    assert "what it wrote is thrown away" in done.out
    assert machines(shed) == []
    change(disk, 3)
    failback("export", "web", "--disk", disk)
    result = bring("--json").result
    assert (result["disks"][0]["mode"], result["point"]) == ("refresh", "web@2")
    assert result["written"] == 64 << 10


def test_verify_boots_and_leaves_nothing_behind(failback: Run, shed: Path, tmp_path: Path) -> None:
    arguments = ("verify", "web", "--boot", "--to", "shed", "--map", tmp_path / "map.yaml", "--hook")
    done = failback(*arguments, "door:web")
    assert done.code == 0, done.err
    assert "web@1 is verified" in done.out
    assert list(shed.iterdir()) == []
    assert failback(*arguments, "door:mallory").code == 12
    assert list(shed.iterdir()) == []


def test_a_dry_run_of_what_is_there_says_so_and_of_a_later_point_what_the_import_would(
    bring: Run, failback: Run, disk: Path, change: Callable[[Path, int], None]
) -> None:
    bring("--boot")
    done = bring("--dry-run")
    assert done.code == 0, done.err
    assert "web@1 is on the disks at shed already" in done.out
    result = bring("--dry-run", "--json").result
    assert (result["to_move"], result["disks"]) == (0, [])
    failback("stop", "web", "--to", "shed")
    assert bring("--dry-run", "--json").result["disks"] == [], "what it wrote is still there"
    assert bring("--dry-run", "--rehearse").code == bring("--rehearse").code == 7
    change(disk, 3)
    failback("export", "web", "--disk", disk)
    dry, real = bring("--dry-run"), bring()
    assert dry.code == real.code == 7
    assert dry.err == real.err


def test_a_port_of_a_machine_without_an_adapter_is_refused_before_anything_moves(
    shed: Path, failback: Run, disk: Path, tmp_path: Path
) -> None:
    assert failback("export", "bare", "--disk", disk, "--memory", "512M").code == 0
    checks = tmp_path / "checks.yaml"
    check = "{name: port, hook: tcp, settings: {port: 22}, level: advisory}"
    checks.write_text(f"checks: [{check}, {{name: up, hook: console, settings: {{text: 'login:'}}}}]")
    for verb in (("import", "bare"), ("import", "bare", "--rehearse"), ("verify", "bare", "--boot")):
        done = failback(*verb, "--to", "shed", "--hook", "http:80")
        assert done.code == 11
        assert "bare has no network adapter: the check 'http:80' cannot reach port 80" in done.err
        assert "--nic network=NAME" in done.err
    assert not shed.exists()
    done = failback("import", "bare", "--to", "shed", "--checks", checks, "--map", tmp_path / "map.yaml", "--json")
    assert done.code == 0, done.err
    assert [c["status"] for c in done.result["checks"]["checks"]] == ["not applicable", "passed"]
    assert "it will have none" in done.out
    (tmp_path / "map.yaml").write_text('networks: {"*": null}')
    done = failback("import", "web", "--to", "shed", "--map", tmp_path / "map.yaml", "--hook", "tcp:22")
    assert done.code == 11
    assert "the mapping takes its adapters away" in done.err


def test_a_proof_that_is_weak_is_called_so(
    bring: Run, failback: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsoleHook, "look", lambda *_: passed("the picture changed"))
    verify = ("verify", "web", "--boot", "--to", "shed", "--map", tmp_path / "map.yaml")
    for weak in ((), ("--hook", "console"), ("--picture", tmp_path / "p.png")):
        assert "a weak proof" in failback(*verify, *weak).err
        assert failback(*verify, *weak, "--json").result["weak_proof"] is True
    for strong in (("--hook", "door:web"), ("--hook", "console:login:"), ("--hook", "console", "--hook", "door:web")):
        assert "a weak proof" not in failback(*verify, *strong).err
        assert failback(*verify, *strong, "--json").result["weak_proof"] is False


def test_what_stop_kept_is_cleaned_only_by_force(bring: Run, failback: Run, shed: Path) -> None:
    bring("--boot")
    assert failback("stop", "web", "--to", "shed", "--keep").code == 0
    refused = failback("clean", "web", "--to", "shed", "--all")
    assert refused.code == 7
    assert "--force" in refused.err
    assert len(machines(shed, "kept")) == 1
    assert failback("clean", "web", "--to", "shed", "--force").code == 2
    assert failback("clean", "web", "--to", "shed", "--all", "--force").code == 0
    assert list(shed.iterdir()) == []


def test_stop_decides_about_what_the_machine_wrote(bring: Run, failback: Run, shed: Path) -> None:
    assert failback("stop", "web", "--to", "shed").code == 3
    assert failback("clean", "--json").result["places"] == [], "nothing is remembered of having asked"
    assert failback("clean", "web", "--to", "shed", "--json").result["places"] == []
    bring("--boot")
    assert "web is off at shed" in failback("stop", "web", "--to", "shed").out
    assert "web was off at shed" in failback("stop", "web", "--to", "shed").out
    assert "thrown away" in failback("stop", "web", "--to", "shed", "--drop").out
    assert machines(shed) == []
    bring("--boot")
    assert failback("stop", "web", "--to", "shed", "--keep", "--json").result["layer"] == "keep"
    assert len(machines(shed, "kept")) == 1
    assert failback("stop", "web", "--to", "shed", "--keep", "--drop").code == 2


def test_a_machine_that_was_switched_on_is_not_replaced(
    bring: Run, failback: Run, disk: Path, change: Callable[[Path, int], None]
) -> None:
    bring("--boot")
    change(disk, 3)
    failback("export", "web", "--disk", disk)
    done = bring()
    assert done.code == 7
    assert "failback stop web --to shed --drop" in done.err


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(bring: Run, shed: Path, tmp_path: Path) -> None:
    result = bring("--dry-run", "--json", "--rehearse").result
    assert result["to_move"] > 0
    assert result["machine"]["memory_bytes"] == 512 << 20
    assert not shed.exists()
    (tmp_path / "map.yaml").write_text('networks: {"*": moon}')
    done = bring("--dry-run")
    assert done.code == 11
    assert "the shed has no network moon" in done.err
    assert not shed.exists()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('networks: {"*": moon}', 11, "network moon"),
        ("networks: {elsewhere: garden}", 11, "is not in the mapping"),
        ("memory: 16MiB\nnetworks: {old: garden}", 11, "too little"),
        ("memory: 16", 2, "no unit"),
        ("netwroks: {}", 2, "netwroks is not known"),
        ("networks: [", 2, "cannot be understood"),
        ("options: {shed: {taste: sweet}}", 2, "no option taste"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_before_anything_is_made(
    bring: Run, shed: Path, tmp_path: Path, text: str, code: int, message: str
) -> None:
    (tmp_path / "map.yaml").write_text(text)
    done = bring("--boot")
    assert done.code == code
    assert message in done.err
    assert not shed.exists()


def test_what_does_not_go_together_is_refused(bring: Run, failback: Run, tmp_path: Path, shed: Path) -> None:
    for wrong in (
        ("--no-boot", "--hook", "door:web"),
        ("--no-boot", "--rehearse"),
        ("--no-boot", "--instant"),
        ("--hook", "no-such-hook"),
        ("--hook", "tcp:0"),
        ("--checks", tmp_path / "nothing.yaml"),
        ("--picture", tmp_path / "nowhere" / "p.png"),
        ("--junit", tmp_path / "nowhere" / "j.xml"),
    ):
        assert bring(*wrong).code == 2, wrong
    assert bring("--instant").code == 11
    for wrong in (("--boot",), ("--rehearse",), ("--hook", "door:web")):
        done = failback("import", "web", "--out", tmp_path / "out", *wrong)
        assert done.code == 2
        assert "makes disks, no machines" in done.err
    assert failback("verify", "web", "--hook", "door:web").code == 2
    assert failback("verify", "web", "--boot", "--read").code == 2
    assert failback("verify", "web", "--boot", "--to", "files").code == 2
    assert failback("clean", "--all").code == 2
    assert not shed.exists()
    assert not (tmp_path / "out").exists()


def test_an_importer_that_is_not_there_or_cannot_be_loaded_is_named(bring: Run, failback: Run, shed: Path) -> None:
    done = failback("import", "web", "--to", "moon")
    assert done.code == 2
    assert "shed" in done.err
    done = failback("import", "web", "--to", "broken")
    assert done.code == 2
    assert "shed.nothing:Nothing" in done.err


def test_doctor_looks_at_a_target(failback: Run, shed: Path) -> None:
    done = failback("doctor", "--to", "shed")
    assert "shed: door: it is open" in done.out
    assert "shed: ready" in done.out
    assert failback("doctor", "--to", "moon").code == 2


@pytest.mark.parametrize("step", ["stage", "staged", "build", "built", "boot", "booted", "hook"])
def test_killed_at_any_step_the_same_command_brings_one_machine(
    shed: Path, tmp_path: Path, process: Run, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("import", "web", "--to", "shed", "--map", tmp_path / "map.yaml", "--hook", "door:web")
    monkeypatch.setenv("SHED_DIES_AT", step)
    assert process(*arguments).code == -signal.SIGKILL
    monkeypatch.delenv("SHED_DIES_AT")
    done = process(*arguments, "--json")
    assert done.code == 0, done.err
    assert len(machines(shed)) == len(machines(shed, "on")) == 1
    assert len(list(shed.glob("*/disk*.raw"))) == len(list(shed.glob("*/machine/*"))) == 1
    assert list(shed.glob("*.new")) == []


@pytest.mark.parametrize("step", ["stage", "staged", "build", "built", "boot", "booted", "hook"])
def test_what_a_killed_verification_left_is_cleaned_and_nothing_else(
    shed: Path, tmp_path: Path, process: Run, step: str, monkeypatch: pytest.MonkeyPatch, failback: Run, bring: Run
) -> None:
    assert bring("--boot").code == 0
    before = sorted(shed.rglob("*"))
    arguments = ("verify", "web", "--boot", "--to", "shed", "--map", tmp_path / "map.yaml", "--hook", "door:web")
    monkeypatch.setenv("SHED_DIES_AT", step)
    assert process(*arguments).code == -signal.SIGKILL
    monkeypatch.delenv("SHED_DIES_AT")
    assert len(list(shed.iterdir())) == 2
    dry = failback("clean", "--dry-run")
    assert "would remove" in dry.out
    assert "left by verification of web@1" in dry.out
    assert len(list(shed.iterdir())) == 2
    places: list[dict[str, Any]] = failback("clean", "--json").result["places"]
    assert {place["name"]: place["action"] for place in places} == {"web/import": "none", "web/verify": "remove"}
    assert sorted(shed.rglob("*")) == before
    assert "there is nothing to remove" in failback("clean").out


def test_a_target_that_cannot_be_asked_keeps_nothing_from_being_cleaned_at_others(
    shed: Path, tmp_path: Path, process: Run, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    monkeypatch.setenv("SHED_DIES_AT", "build")
    verify = ("verify", "web", "--boot", "--to", "shed", "--map", tmp_path / "map.yaml", "--hook", "door:web")
    assert process(*verify).code == -signal.SIGKILL
    monkeypatch.delenv("SHED_DIES_AT")
    [record] = (tmp_path / "state" / "places").rglob("place.json")
    other = record.parents[2] / "absent" / record.parent.name / record.name
    other.parent.mkdir(parents=True)
    other.write_text(record.read_text().replace('"shed"', '"absent"'))
    done = failback("clean")
    assert done.code == 2, "cron is told"
    assert "absent is unknown" in done.err
    assert "1 place cleaned" in done.out
    assert list(shed.iterdir()) == []
    assert failback("clean", "--json").result["places"][0]["action"] == "failed"
    assert failback("clean", "web", "--to", "absent").code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("rehearsal", [True, False])
def test_interrupted_while_hooks_look_a_rehearsal_is_thrown_away_and_a_machine_goes_on(
    shed: Path, tmp_path: Path, number: signal.Signals, code: int, rehearsal: bool
) -> None:
    looked = tmp_path / "looked"
    (tmp_path / "checks.yaml").write_text(f"checks: [{{name: wait, hook: door, settings: {{waits_for: {looked}}}}}]")
    arguments = ["--to", "shed", "--map", tmp_path / "map.yaml", "--checks", tmp_path / "checks.yaml"]
    verb = ["verify", "web", "--boot"] if rehearsal else ["import", "web"]
    with subprocess.Popen(
        command(*verb, *arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as running:
        deadline = time.monotonic() + 60
        while not looked.exists():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(machines(shed, "on")) == 1
        running.send_signal(number)
        _out, err = running.communicate(timeout=60)
    assert running.returncode == code
    if rehearsal:
        assert "nothing is left running" in err
        assert machines(shed) == machines(shed, "on") == []
    else:
        assert "failback stop web --to shed" in err
        assert len(machines(shed, "on")) == 1


def test_two_commands_on_one_machine_are_refused(shed: Path, tmp_path: Path, failback: Run, bring: Run) -> None:
    looked = tmp_path / "looked"
    (tmp_path / "checks.yaml").write_text(f"checks: [{{name: wait, hook: door, settings: {{waits_for: {looked}}}}}]")
    arguments = ("import", "web", "--to", "shed", "--map", tmp_path / "map.yaml", "--checks", tmp_path / "checks.yaml")
    with subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not looked.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        refused: Done = bring()
        assert refused.code == 9
        assert f"held by pid {running.pid}" in refused.err
        assert {p["action"] for p in failback("clean", "--json").result["places"]} == {"held"}
        running.terminate()
        running.wait(60)
    assert bring().code == 0


def test_a_point_on_a_machines_disks_is_held_until_the_machine_is_taken_away(
    bring: Run, failback: Run, disk: Path, shed: Path
) -> None:
    assert bring().code == 0
    assert failback("export", "web", "--disk", disk, *HARDWARE).code == 0
    refused = failback("forget", "web@1", "--reason", "old")
    assert refused.code == 2
    assert "held by shed-" in refused.err
    assert failback("--json", "forget", "web", "--keep-last", 1).result["points"][0]["action"] == "keep"
    assert failback("clean", "web", "--to", "shed", "--all").code == 0
    assert failback("forget", "web@1", "--reason", "old").code == 0


def test_a_point_that_was_booted_and_verified_is_not_forgotten_by_a_policy(
    failback: Run, disk: Path, shed: Path, tmp_path: Path
) -> None:
    checked = ("--boot", "--to", "shed", "--map", tmp_path / "map.yaml", "--hook", "door:web")
    done = failback("verify", "web", *checked)
    assert done.code == 0, done
    assert failback("export", "web", "--disk", disk, *HARDWARE).code == 0
    points = failback("--json", "forget", "web", "--keep-last", 1).result["points"]
    assert points[0]["reasons"] == ["last verified"]
