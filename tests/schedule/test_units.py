"""Timers and crontab lines: what we wrote is ours, and nothing else is touched."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.cli import exitcodes
from pipeline.errors import UsageError
from pipeline.plans.model import Plan
from pipeline.schedule import cron, systemd
from pipeline.schedule.job import Job, Mark, jobs_of, parse_mark
from pipeline.schedule.lock import alone, keep_last, last

REPOSITORY = "0123456789abcdef0123456789abcdef"
PLAN = Plan.model_validate(
    {
        "name": "shop",
        "target": "qemu",
        "source": {"kind": "qemu"},
        "machines": {"vm": {}},
        "groups": [{"name": "shop", "waves": [["vm"]]}],
        "schedule": {"export": "hourly", "conditions": "*:0/5"},
    }
)
FAILBACK = ("/bin/echo", "-m", "pipeline.cli.main", "--repository", 's3://b/50%25 "x"$HOME\\')


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    monkeypatch.setenv("FAILBACK_KEY_FILE", "/root/my key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    return jobs_of(PLAN, REPOSITORY, FAILBACK)


def test_jobs_call_us_with_what_they_need_and_no_secrets(jobs: list[Job]) -> None:
    assert [job.mark.job for job in jobs] == ["export", "conditions"]
    assert jobs[0].command == (*FAILBACK, "--json", "--quiet", "schedule", "run", "shop", "export")
    assert jobs[0].environment["FAILBACK_KEY_FILE"] == "/root/my key"
    assert "hunter22" not in "".join(systemd.units(jobs[0]).values()) + "".join(cron.lines(jobs[0]))


def test_a_mark_reads_back() -> None:
    mark = Mark(REPOSITORY, "shop", "export")
    assert parse_mark(str(mark)) == mark
    for line in (
        "",
        "# failback schedule",
        "# failback schedule {}",
        "# failback schedule [1]",
        "# failback schedule x",
    ):
        assert parse_mark(line) is None


def test_units_are_written_once_listed_and_removed(jobs: list[Job], tmp_path: Path) -> None:
    folder = tmp_path / "units"
    written = systemd.install(folder, jobs)
    assert sorted(path.name for path in written) == [
        f"failback-shop-{job}-01234567.{kind}" for job in ("conditions", "export") for kind in ("service", "timer")
    ]
    assert systemd.install(folder, jobs) == []
    assert [(m.job, c) for m, c, _path in systemd.entries(folder)] == [("conditions", "*:0/5"), ("export", "hourly")]
    foreign = folder / "failback-mine.timer"
    foreign.write_text("[Timer]\nOnCalendar=daily\n")
    assert len(systemd.entries(folder)) == 2
    assert len(systemd.remove(folder, [jobs[0].mark])) == 2
    assert [m.job for m, _calendar, _path in systemd.entries(folder)] == ["conditions"]
    assert foreign.exists()


def test_a_file_of_somebody_else_is_not_overwritten(jobs: list[Job], tmp_path: Path) -> None:
    path = tmp_path / f"{jobs[0].mark.name}.timer"
    path.write_text("[Timer]\n")
    with pytest.raises(UsageError, match="was not written by failback"):
        systemd.install(tmp_path, jobs)
    assert path.read_text() == "[Timer]\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(jobs: list[Job]) -> None:
    systemd.verify(jobs)
    with pytest.raises(UsageError, match="systemd does not take"):
        systemd.verify([Job(jobs[0].mark, "hourly", ("/not/there",), {})])


def test_words_are_quoted_as_systemd_reads_them(jobs: list[Job]) -> None:
    service = systemd.units(jobs[0])[f"{jobs[0].mark.name}.service"]
    assert '"s3://b/50%%25 \\"x\\"$$HOME\\\\"' in service
    assert 'Environment="FAILBACK_KEY_FILE=/root/my key"' in service
    assert f"SuccessExitStatus={exitcodes.RUN_WAITS}\n" in service, (
        "and a run that waits for a person is not overlooked"
    )
    with pytest.raises(UsageError, match="cannot stand in a unit"):
        systemd.units(Job(jobs[0].mark, "hourly", ("/bin/echo", "a\nExecStart=/bin/sh"), {}))


def test_a_crontab_keeps_its_other_lines(jobs: list[Job]) -> None:
    mine = "MAILTO=me\n# failback schedule of mine\n5 4 * * * backup\n"
    table = cron.installed(mine, jobs)
    assert table.startswith(mine)
    assert cron.installed(table, jobs) == table
    assert [(m.job, fields) for m, fields in cron.entries(table)] == [
        ("export", "0 * * * *"),
        ("conditions", "*/5 * * * *"),
    ]
    assert cron.installed(table, [], [job.mark for job in jobs]) == mine


def test_a_line_of_a_crontab_does_what_is_meant(jobs: list[Job]) -> None:
    [_mark, line] = cron.lines(jobs[0])
    # As cron does: five fields, then text in which \% is a percent sign, for /bin/sh.
    command = line.split(maxsplit=5)[5].replace("\\%", "%").removesuffix(">/dev/null")
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == " ".join(jobs[0].command[1:]) + "\n"


@pytest.fixture
def crontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `crontab` that keeps its table in a file."""
    program, table = tmp_path / "bin" / "crontab", tmp_path / "table"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
case $1 in
-l) if [ -e {table} ]; then cat {table}; else echo "no crontab for me" >&2; exit 1; fi;;
-) cat >{table}.new; if grep -q bad {table}.new; then echo "bad minute" >&2; exit 1; fi; mv {table}.new {table};;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return table


def test_the_crontab_is_read_and_written(crontab: Path) -> None:
    assert cron.read() == ""
    cron.write("5 4 * * * backup\n")
    assert cron.read() == "5 4 * * * backup\n"
    with pytest.raises(UsageError, match="bad minute"):
        cron.write("bad\n")
    assert crontab.read_text() == "5 4 * * * backup\n"


@pytest.mark.skipif(shutil.which("crontab") is None, reason="crontab is not installed")
def test_the_real_crontab_takes_the_lines(jobs: list[Job]) -> None:
    before = cron.read()
    try:
        cron.write(cron.installed(before, jobs))
        assert [m.job for m, _fields in cron.entries(cron.read())][-2:] == ["export", "conditions"]
    finally:
        cron.write(before)


def test_one_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "s", "a") as first:
        assert first == ""
        with alone(tmp_path / "s", "a") as second:
            assert second.startswith("process ")
        with alone(tmp_path / "s", "b") as other:
            assert other == ""
    with alone(tmp_path / "s", "a") as again:
        assert again == ""


def test_what_came_last_is_kept_and_its_loss_is_no_error(tmp_path: Path) -> None:
    assert last(tmp_path, "a") == {}
    keep_last(tmp_path, "a", {"exit_code": 3})
    assert last(tmp_path, "a") == {"exit_code": 3}
    (tmp_path / "a.json").write_text("{")
    assert last(tmp_path, "a") == {}
    keep_last(tmp_path / "none", "a", {})
