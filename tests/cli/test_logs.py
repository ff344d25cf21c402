"""One log for many processes, without secrets."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Run
from pipeline import logs

WRITER = """
import sys
from pathlib import Path
from pipeline import logs
logs.MAX_BYTES, logs.BACKUPS = 40_000, 50
with logs.opened(Path(sys.argv[1])) as log:
    for number in range(500):
        log.info("writer %s line %d %s", sys.argv[2], number, "x" * 40)
        if number == 10:
            log.warning("the file is open from here on")
"""


def test_four_processes_write_one_log_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "failback.log"
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)]) for n in range(4)]
    assert [one.wait(timeout=120) for one in running] == [0] * 4
    files = [file for file in path.parent.iterdir() if file.name.startswith("failback.log")]
    assert len(files) > 2
    found = re.findall(
        r"^\S+ \S+ INFO +\[\d+\] writer (\d) line (\d+) x{40}$", "\n".join(f.read_text() for f in files), re.M
    )
    assert len(found) == 2000
    assert len(set(found)) == 2000


def test_start_end_and_requests_of_a_command_are_logged(
    repository: Path, disk: Path, log: Callable[[], str], process: Run
) -> None:
    process("export", "web", "--disk", disk)
    text = log()
    assert f"export web --disk {disk}" in text
    assert "end: done, exit code 0" in text
    assert re.search(r"requests: .*put \d+ \(0 failed, \d+ bytes sent", text)
    process("show", "nothing")
    assert "end: failed, exit code 3" in log()


def test_the_log_is_where_the_settings_say(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    monkeypatch.setenv("FAILBACK_LOG_FILE", str(tmp_path / "elsewhere" / "my.log"))
    failback("list")
    path = tmp_path / "elsewhere" / "my.log"
    assert "exit code 0" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_stops_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: Run
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FAILBACK_LOG_FILE", str(tmp_path / "file" / "my.log"))
    done = process("list")
    assert done.code == 0
    assert "cannot be written" in done.err


def test_requests_are_logged_when_asked_for(repository: Path, log: Callable[[], str], failback: Run) -> None:
    failback("list", "--verbose")
    assert '"verb": "get", "key": "repository.json"' in log()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://me:pw@bucket/x", "s3://***@bucket/x"),
        ("GET /x?X-Amz-Signature=abc123&a=b", "GET /x?X-Amz-Signature=***&a=b"),
        ("aws_secret_access_key = x", "aws_secret_access_key = x"),
        ("password=hunter2 done", "password=*** done"),
        ("the value SECRETVALUE here", "the value *** here"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, expected: str) -> None:
    assert logs.redact(text, {"AWS_SECRET_ACCESS_KEY": "SECRETVALUE"}) == expected


def test_a_record_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    with logs.opened(path) as log:
        log.info("first\nsecond")
    assert path.read_text().splitlines()[1] == "    second"
