"""What is printed: sentences, JSON lines, or nothing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from cli.conftest import Run, command
from pipeline import units
from pipeline.cli.arrived import _tell_disks
from pipeline.cli.invocation import Common, Invocation
from pipeline.cli.output import Output
from pipeline.cli.progress import Meter, sentence
from pipeline.place import DiskRestored
from pipeline.progress import Counters

if TYPE_CHECKING:
    from pipeline.catalogue import Point


def test_quiet_prints_errors_only(repository: Path, disk: Path, tmp_path: Path, process: Run) -> None:
    for arguments in (
        ("export", "web", "--disk", disk, "--quiet"),
        ("--quiet", "export", "web", "--disk", disk),
        ("list", "-q"),
        ("show", "web", "-q"),
        ("verify", "web", "-q"),
        ("import", "web", "--out", tmp_path / "out", "-q"),
        ("doctor", "-q"),
    ):
        done = process(*arguments)
        assert (done.code, done.out, done.err) == (0, "", "")
    assert process("show", "nothing", "-q").err.startswith("failback: there is no machine")


def test_json_is_json_lines_with_one_result(repository: Path, disk: Path, tmp_path: Path, process: Run) -> None:
    for arguments in (
        ("repository", "info"),
        ("export", "web", "--disk", disk),
        ("--json", "export", "web", "--disk", disk),
        ("list",),
        ("list", "web"),
        ("show", "web"),
        ("diff", "web@1", "web@2"),
        ("verify", "web", "--read"),
        ("import", "web", "--out", tmp_path / "out"),
        ("forget", "web@1", "--reason", "ümläut"),
        ("doctor",),
        ("show", "nothing"),
    ):
        done = process(*arguments, "--json") if arguments[0] != "--json" else process(*arguments)
        assert [line["type"] for line in done.lines].count("result") == 1
        result = done.result
        assert (result["ok"], result["exit_code"]) == (done.code == 0, done.code)
        if done.code:
            assert result["error"]["remedy"]
        else:
            assert done.err == ""


def test_common_options_may_stand_before_and_after(empty: Path, tmp_path: Path, failback: Run) -> None:
    other = tmp_path / "other"
    assert failback("-r", other, "repository", "init").code == 0
    assert failback("list", "-r", other).code == 0
    assert failback("repository", "info", "--repository", other, "--json").code == 0
    assert failback("list").code == 2


def test_a_bar_on_a_terminal(repository: Path, tmp_path: Path) -> None:
    disk = tmp_path / "large.img"
    disk.write_bytes(os.urandom(24 << 20))
    main, side = pty.openpty()
    environment = {**os.environ, "FAILBACK_UPLOAD_LIMIT": "12M", "TERM": "xterm", "COLUMNS": "100"}
    running = subprocess.Popen(command("export", "web", "--disk", disk), env=environment, stdout=side, stderr=side)
    os.close(side)
    seen = b""
    try:
        while block := os.read(main, 65536):
            seen += block
    except OSError:
        pass  # Linux tells so that the last writer has closed a terminal
    assert running.wait(timeout=60) == 0
    text = seen.decode()
    assert "MiB/s" in text
    assert "left" in text
    assert "web@1 is complete" in text


def test_a_name_that_the_terminal_cannot_show(
    repository: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, process: Run
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert process("export", "größe", "--disk", disk).code == 0
    assert process("show", "größe").code == 0
    assert process("list").code == 0


def test_the_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("pipeline.cli.progress.time.monotonic", lambda: clock[0])
    meter, counters = Meter(), Counters(phase="export", disk="d", total=1000 << 20)
    assert meter.measure() is None
    meter(counters)
    clock[0] += 2
    counters.done = 200 << 20
    found = meter.measure()
    assert found is not None
    _, speed, left = found
    assert (speed, left) == (100 << 20, 8.0)
    assert sentence(*found).startswith("export d: 20 %, 100 MiB/s, 8.0 s left")
    clock[0] += 60
    meter.measure()
    clock[0] += 60
    stalled = meter.measure()
    assert stalled is not None
    assert stalled[1:] == (0.0, None)


def test_what_is_waited_for_is_shown_without_figures_of_bytes() -> None:
    assert sentence(Counters(phase="waiting for", disk="login, shop"), 0.0, None) == "waiting for login, shop"


def test_sizes() -> None:
    shown = {
        0: "0 bytes",
        1: "1 byte",
        1023: "1023 bytes",
        1024: "1.00 KiB",
        1500 << 10: "1.46 MiB",
        640 << 20: "640 MiB",
    }
    assert {number: units.size(number) for number in shown} == shown
    assert units.size(16 << 40) == "16.0 TiB"
    assert units.size(1 << 62) == "4.00 EiB"


def test_durations() -> None:
    shown = {
        0.04: "0.0 s",
        9.96: "10 s",
        59.7: "1 min",
        185: "3 min 5 s",
        3600: "1 h",
        7800: "2 h 10 min",
        360000: "4 d 4 h",
    }
    assert {seconds: units.duration(seconds) for seconds in shown} == shown


def test_json_lines_stay_whole_under_many_threads(repository: Path, disk: Path, process: Run) -> None:
    for line in process("export", "web", "--disk", disk, "--json", "-v").out.splitlines():
        json.loads(line)


def test_a_repository_that_is_not_there_is_one_finding_whether_its_folder_is_or_not(
    empty: Path, disk: Path, failback: Run
) -> None:
    missing = failback("list")
    empty.mkdir()
    nothing = failback("list")
    assert (missing.code, nothing.code) == (2, 2)
    assert "there is no such folder" in missing.err
    assert missing.err.splitlines()[1] == nothing.err.splitlines()[1]
    assert "mount" in nothing.err
    assert "failback repository init" in nothing.err


def test_help_says_where_a_point_is_booted(failback: Run) -> None:
    assert "[default: (qemu)]" in failback("verify", "--help").out


def test_one_of_a_thing_is_not_called_many(repository: Path, tmp_path: Path, failback: Run) -> None:
    small = tmp_path / "small.img"
    small.write_bytes(b"x" * 1000)
    assert failback("export", "web", "--disk", small).code == 0
    assert "1 pack and" in failback("verify", "web").out
    assert "1 chunk in 1 pack were read" in failback("verify", "web", "--read").out


def test_what_others_wrote_gives_the_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.say("a\x1b[2Jb\tc")
    output.warn("\u202egnp.exe")
    output.error("console: \x9b31m\x07", "then\nthis")
    said = capsys.readouterr()
    assert said.out == "a\\x1b[2Jb\tc\n"
    assert said.err == "warning: \\u202egnp.exe\nfailback: console: \\x9b31m\\x07\n  then\nthis\n"


def test_a_disk_that_has_no_name_but_its_number_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    def told(target: str) -> str:
        counters = Counters(phase="restore", disk="disk 0", total=0)
        result = DiskRestored(0, target, "full", "it is new", "ab" * 32, "a proof", counters)
        point = SimpleNamespace(manifest=SimpleNamespace(disks=[SimpleNamespace(number=0, unreadable=())]))
        _tell_disks(Invocation("import", Common()), cast("Point", point), [result], dry_run=True)
        return capsys.readouterr().out

    assert told("disk 0").splitlines() == ["  disk 0: full, it is new"]
    assert told("/srv/disk0.raw").splitlines() == ["  disk 0: /srv/disk0.raw: full, it is new"]
