"""Plans on the command line: from a draft to a version in the repository, and what two of them say differently."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Run
from pipeline.plans.document import read_yaml


@pytest.fixture(autouse=True)
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of the name `pretended` is installed."""
    folder = tmp_path / "installed" / "pretended-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pretended\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[failback.sources]\npretended = plans.conftest:SimulatedSource\n")
    monkeypatch.syspath_prepend(str(folder.parent))


@pytest.fixture
def drafted(repository: Path, disk: Path, failback: Run, tmp_path: Path) -> Path:
    """A plan of two machines, one of which was exported."""
    assert failback("export", "db", "--disk", disk, "--nic", "network=back office").code == 0
    path = tmp_path / "shop.yaml"
    machines = ("--machine", "db", "--machine", "web 1")
    assert failback("plan", "new", "shop", *machines, "--source", "pretended", "--out", path).code == 0
    return path


def test_a_draft_is_a_plan_and_says_what_is_known(drafted: Path, failback: Run) -> None:
    text = drafted.read_text()
    assert '# "back office": NETWORK-THERE' in text
    assert "# db@1: 1 CPUs, 1.00 GiB, bios, disks of 2.50 MiB" in text
    assert "It has no point yet" in text
    assert failback("plan", "put", drafted).out == f"{drafted} is stored as shop@1\n"


def test_what_a_draft_has_in_comments_is_right_too(drafted: Path, failback: Run) -> None:
    lines = drafted.read_text().splitlines()
    drafted.write_text("\n".join(re.sub(r"^( *)# (?=[- ]*[{a-z\"]+[a-z \"]*:)", r"\1", line) for line in lines))
    document = read_yaml(drafted.read_text(), where="test")
    assert document["schedule"]["conditions"] == "*:0/5"
    assert len(document["conditions"]) == 5
    assert document["groups"][0]["traffic"][0]["kind"] == "command"
    assert document["mapping"]["networks"]["back office"] == "NETWORK-THERE"
    done = failback("plan", "put", drafted)
    assert (done.code, done.err) == (0, "")


def test_no_file_is_overwritten(drafted: Path, failback: Run) -> None:
    done = failback("plan", "new", "shop", "--out", drafted)
    assert (done.code, "exists" in done.err) == (2, True)
    done = failback("plan", "new", "shop", "--out", "-", "--source", "pretended", "--machine", "db")
    assert done.out.startswith("# Plan shop.")


def test_what_is_stored_is_shown_listed_and_compared(drafted: Path, failback: Run, tmp_path: Path) -> None:
    assert failback("plan", "put", drafted).code == 0
    done = failback("--json", "plan", "put", drafted)
    assert (done.result["version"], done.result["fresh"]) == (1, False)
    shown = tmp_path / "shown.yaml"
    assert failback("plan", "show", "shop", "--out", shown).code == 0
    assert failback("plan", "diff", "shop", shown).out == f"shop@1 and {shown} mean the same\n"
    drafted.write_text(drafted.read_text().replace("on_failure: hold", "on_failure: rollback"))
    assert failback("plan", "diff", "shop", drafted).out == 'on_failure: "hold" -> "rollback"\n'
    assert failback("--json", "plan", "put", drafted).result["version"] == 2
    assert failback("plan", "diff", "shop@2", "shop@1").out == 'on_failure: "rollback" -> "hold"\n'
    listed = failback("plan", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["PLAN", "shop@2"]
    listed = failback("plan", "list", "shop").out.splitlines()
    assert [line.split()[0] for line in listed] == ["PLAN", "shop@1", "shop@2"]
    shown_text = failback("plan", "show", "shop@1").out
    assert shown_text.startswith("# shop@1, stored ")
    assert "on_failure: hold" in shown_text
    result = failback("--json", "plan", "show", "shop@2").result
    assert result["document"]["on_failure"] == "rollback"


def test_what_is_not_there_ends_with_its_code(repository: Path, failback: Run, tmp_path: Path) -> None:
    assert failback("plan", "show", "shop").code == 3
    assert failback("plan", "list", "shop").code == 3
    assert "no plan yet" in failback("plan", "list").out
    done = failback("plan", "put", tmp_path / "none.yaml")
    assert (done.code, "cannot be read" in done.err) == (2, True)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: shop\nmachnes: {}\n")
    done = failback("plan", "put", wrong)
    assert done.code == 2
    assert f"{wrong}: " in done.err
    assert "machnes is not known" in done.err
    assert failback("plan", "new", "Shop").code == 2
    assert failback("plan", "new", "shop").code == 2


def test_the_schema_is_printed_and_needs_no_repository(failback: Run) -> None:
    schema = json.loads(failback("plan", "schema").out)
    assert schema["title"] == "A plan of failback"


TAKEOVER = """#!/bin/sh
world=%s
echo "$1 $FAILBACK_MACHINE" >>$world/calls
case $1 in
observe) cat $world/power;;
stop) echo off >$world/power;;
start) echo on >$world/power;;
prove) grep -q off $world/power && echo "it is off";;
esac
"""


@pytest.fixture
def plan(repository: Path, disk: Path, failback: Run, tmp_path: Path) -> Path:
    """Of one machine, which programs look after, and which was exported."""
    assert failback("export", "db", "--disk", disk, "--nic", "network=lan").code == 0
    (tmp_path / "power").write_text("on\n")
    takeover = tmp_path / "takeover"
    takeover.write_text(TAKEOVER % tmp_path)
    takeover.chmod(0o755)
    words = {"observe": "observe", "quiesce": "x", "stop": "stop", "lock": "x", "unlock": "x", "start": "start"}
    options = {word: [str(takeover), what] for word, what in (words | {"prove_stopped": "prove"}).items()}
    check = {"name": "answers", "hook": "tcp", "settings": {"port": 22}}
    document = {
        "name": "shop",
        "target": "qemu",
        "mapping": {"networks": {"*": {"isolated": True}}},
        "source": {"kind": "command", "options": options},
        "machines": {"db": {"source": {"disks": [str(disk)]}, "checks": [check]}},
        "groups": [{"name": "shop", "waves": [["db"]]}],
        "conditions": [
            {"name": "bucket", "kind": "repository"},
            {"name": "go", "kind": "command", "settings": {"argv": ["/bin/sh", "-c", f"test -e {tmp_path}/go"]}},
        ],
        "schedule": {"export": "hourly", "conditions": "*:0/5"},
    }
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps(document))
    return path


def test_a_plan_is_looked_at_before_it_is_run(plan: Path, process: Run, tmp_path: Path) -> None:
    done = process("--json", "plan", "check", plan)
    assert done.code == 0, done.out
    found = {(f["machine"], f["subject"]): f for f in done.result["findings"]}
    assert found["", "condition go"]["message"].startswith("waiting: /bin/sh ended with 1")
    assert found["", "condition bucket"]["message"].startswith("holds: ")
    assert "to move for db@1" in found["db", "forecast"]["message"]
    assert "no plan yet" in process("plan", "list").out
    (tmp_path / "takeover").chmod(0o644)
    done = process("plan", "check", plan)
    assert done.code == 11
    assert "bad   db: source: " in done.out
    assert f"{tmp_path / 'takeover'}" in done.out


def test_points_are_exported_by_the_clock_while_the_machine_is_over_there(
    plan: Path, failback: Run, disk: Path, change: Callable[[Path, int], None]
) -> None:
    assert failback("plan", "put", plan).code == 0
    change(disk, 4)
    done = failback("--json", "--quiet", "schedule", "run", "shop", "export")
    assert (done.code, len(done.lines)) == (0, 1), done.out + done.err
    assert done.result["machines"] == {"db": {"point": "db@2", "skipped": None}}
    disk.unlink()
    done = failback("--json", "--quiet", "schedule", "run", "shop", "export")
    assert done.code == 6
    assert "disk.img" in done.result["machines"]["db"]["error"]


def test_a_run_begins_by_the_clock_when_all_conditions_hold_and_once(plan: Path, process: Run, tmp_path: Path) -> None:
    call = ("--json", "--quiet", "schedule", "run", "shop", "conditions")
    assert process("plan", "put", plan).code == 0
    done = process(*call)
    assert done.code == 16
    assert list(done.result["waiting"]) == ["go"]
    assert process("--json", "run", "list").result["runs"] == []
    (tmp_path / "go").touch()
    done = process(*call)
    assert done.code == 15, done.out + done.err  # the cutover wants a person
    [run] = process("--json", "run", "list").result["runs"]
    assert process(*call).code == 15
    assert len(process("--json", "run", "list").result["runs"]) == 1
    assert process("run", "cancel", run["run"]).code == 17
    done = process(*call)
    assert (done.code, done.result["outcome"]) == (0, "cancelled")
    assert len(process("--json", "run", "list").result["runs"]) == 1
