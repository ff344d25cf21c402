"""The source of kind `command`: what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Cancelled, SourceBusy, SourceError, SourceUnavailable, Unsupported, UsageError
from pipeline.home.control import Controller
from pipeline.home.folder import PlaceFolder
from pipeline.source import SourceContext
from pipeline.sources import fence
from pipeline.sources.command import CommandSource
from pipeline.sources.fence import Fence
from pipeline.sources.registry import open_source, source_kinds


def source(tmp_path: Path, *, control: Controller | None = None, **options: Any) -> CommandSource:
    return CommandSource(
        SourceContext(
            tmp_path / "state",
            control or Controller(),
            lambda machine: PlaceFolder(tmp_path / "journal" / machine),
            options,
            run="run-1",
        )
    )


def says(*words: str) -> list[str]:
    return ["sh", "-c", " ".join(words)]


def test_it_is_found_by_its_kind(tmp_path: Path) -> None:
    assert "command" in source_kinds()
    found = open_source("command", source(tmp_path)._context)
    assert isinstance(found, CommandSource)
    with pytest.raises(UsageError, match="nowhere"):
        open_source("nowhere", source(tmp_path)._context)


def test_what_it_cannot_do_follows_from_what_is_given(tmp_path: Path) -> None:
    able = source(tmp_path).able("vm", {"disks": ["/dev/null"], "stop": ["true"]})
    assert (able.reads, able.quiesce, able.proof, able.locks, able.changes) == (True, "none", "none", False, False)
    for verb in ("quiesce", "lock"):
        with pytest.raises(Unsupported, match=verb):
            getattr(source(tmp_path), verb)("vm", {}, epoch=1)
    with pytest.raises(Unsupported, match="prove_stopped"):
        source(tmp_path).prove_stopped("vm", {})


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"vm: .*quiesc: Extra"):
        source(tmp_path).able("vm", {"quiesc": ["true"]})
    with pytest.raises(UsageError, match="stop"):
        source(tmp_path).able("vm", {"stop": "systemctl stop vm"})
    [finding] = source(tmp_path).preflight("vm", {"quiesc": ["true"]})
    assert finding.severity == "error"


def test_settings_for_all_machines_are_given_once(tmp_path: Path) -> None:
    assert source(tmp_path, prove_stopped=says("echo $FAILBACK_MACHINE is off")).prove_stopped("db", {}).seen == (
        "db is off"
    )


def test_commands_know_for_whom_they_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("TOKEN", "token-1234")
    out = tmp_path / "out"
    settings = {"stop": ["sh", "-c", f"env >{out}"], "environment": ["TOKEN"]}
    source(tmp_path).stop("vm", settings, epoch=7, seconds=5)
    found = dict(line.split("=", 1) for line in out.read_text().splitlines())
    expected = {"FAILBACK_MACHINE": "vm", "FAILBACK_EPOCH": "7", "FAILBACK_RUN": "run-1", "FAILBACK_SECONDS": "5"}
    assert expected.items() <= found.items()
    assert found["TOKEN"] == "token-1234"
    assert "AWS_SECRET_ACCESS_KEY" not in found


def test_what_it_said_is_in_the_error_and_secrets_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "token-1234")
    settings = {"stop": says("echo no such machine: $TOKEN >&2; exit 3"), "environment": ["TOKEN"]}
    with pytest.raises(SourceError, match=r"vm: stop: sh ended with exit code 3: no such machine: \*\*\*"):
        source(tmp_path).stop("vm", settings, epoch=1)


def test_no_shell_comes_in_between(tmp_path: Path) -> None:
    seen = source(tmp_path).prove_stopped("vm", {"prove_stopped": ["echo", "$HOME; rm -rf *"]}).seen
    assert seen == "$HOME; rm -rf *"


def test_a_command_that_hangs_is_ended_and_nobody_knows_what_it_did(tmp_path: Path) -> None:
    settings = {"quiesce": says("echo half way; sleep 60"), "seconds": 0.3}
    with pytest.raises(SourceUnavailable, match=r"killed after 0\.3 s; it said: half way"):
        source(tmp_path).quiesce("vm", settings, epoch=1)


def test_a_cancelled_verb_ends_its_command(tmp_path: Path) -> None:
    control = Controller()
    control.cancel()
    with pytest.raises(Cancelled):
        source(tmp_path, control=control).quiesce("vm", {"quiesce": ["sleep", "60"]}, epoch=1)


@pytest.mark.parametrize(
    ("command", "error"),
    [("exit 0", SourceError), ("echo it runs; exit 1", SourceError), ("exit 75", SourceUnavailable)],
)
def test_nothing_but_a_proof_is_a_proof(tmp_path: Path, command: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        source(tmp_path).prove_stopped("vm", {"prove_stopped": says(command)})


def test_a_proof_against_what_is_seen_is_none(tmp_path: Path) -> None:
    settings = {"prove_stopped": ["echo", "off"], "observe": ["echo", "on"]}
    with pytest.raises(SourceError, match="is on"):
        source(tmp_path).prove_stopped("vm", settings)


def test_an_answer_that_makes_no_sense_is_no_state(tmp_path: Path) -> None:
    for words in ("", "perhaps", "poweredOff"):
        with pytest.raises(SourceUnavailable):
            source(tmp_path).observe("vm", {"observe": ["echo", words]})


def test_a_machine_that_still_runs_after_stop_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is on after `stop`"):
        source(tmp_path).stop("vm", {"stop": ["true"], "observe": ["echo", "on"]}, epoch=1)


def test_the_disks_and_hardware_are_what_before_read_says(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    document = (
        f'{{"disks": ["{disk}"], "hardware": {{"cpus": 3, "disks": [{{"bus": "scsi"}}]}}, "consistency": "filesystem", '
        '"changes": {"since": 4, "extents": [[[4096, 512], [0, 512]]]}}'
    )
    settings = {"before_read": ["echo", document], "after_read": ["touch", str(tmp_path / "over")]}
    found = source(tmp_path)
    with found.reading("vm", settings, parent=None, final=False) as reading:
        [disk_source] = reading.disks
        assert (disk_source.bus, disk_source.boot, disk_source.source_format) == ("scsi", True, "raw")
        assert disk_source.changes is not None
        assert (disk_source.changes.since, disk_source.changes.extents) == (4, ((0, 512), (4096, 512)))
        assert reading.machine is not None
        assert (reading.machine.name, reading.machine.cpus, reading.consistency) == ("vm", 3, "filesystem")
        assert not (tmp_path / "over").exists()
    assert (tmp_path / "over").exists()


def test_a_change_outside_the_disk_is_refused_and_the_snapshot_goes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 16))
    document = f'{{"disks": ["{disk}"], "changes": {{"since": 4, "extents": [[[65536, 512]]]}}}}'
    settings = {"before_read": ["echo", document], "after_read": ["touch", str(tmp_path / "over")]}
    with (
        pytest.raises(UsageError, match="outside disk 0"),
        source(tmp_path).reading("vm", settings, parent=None, final=False),
    ):
        pass
    assert (tmp_path / "over").exists()


def test_preflight_says_what_is_missing_and_what_that_means(tmp_path: Path) -> None:
    settings = {"disks": [str(tmp_path / "gone")], "lock": ["true"], "stop": ["no-such-program"]}
    findings = {finding.subject: finding for finding in source(tmp_path).preflight("vm", settings)}
    assert {name for name, finding in findings.items() if finding.severity == "error"} == {
        "disk 0",
        "stop",
        "start",
        "unlock",
    }
    assert {"quiesce", "prove_stopped", "observe"} <= findings.keys()
    assert all(finding.remedy for finding in findings.values())
    assert "source: {options: ...}" in findings["start"].remedy, "where it can be said for all machines"


def test_one_at_a_time_and_a_later_one_waits_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_PATIENCE_SECONDS", 0.2)
    first, second = (Fence("vm", PlaceFolder(tmp_path / "journal"), tmp_path / "lock", Controller()) for _ in range(2))
    with first.turn(1), pytest.raises(SourceBusy, match=r"works on vm: pid \d+"), second.turn(2):
        pass
    with second.turn(2):
        assert first.epoch == 2
