"""Several processes at once, and processes that are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.conftest import Run, command

SIZE = 96 << 20


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A disk whose export takes seconds with LIMIT."""
    path = tmp_path / "large.img"
    path.write_bytes(os.urandom(SIZE))
    return path


@contextmanager
def slow_export(disk: Path, *more: str, rate: str = "24M") -> Iterator[subprocess.Popen[str]]:
    """An export that is under way: it has sent something."""
    environment = {**os.environ, "FAILBACK_UPLOAD_LIMIT": rate}
    running = subprocess.Popen(
        command("export", "web", "--disk", disk, "--json", *more),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        for line in running.stdout:
            document = json.loads(line)
            if document["type"] == "progress" and document["sent"] > 0:
                break
        yield running
    finally:
        running.kill()
        running.wait()


def test_9_a_second_writer_is_refused_and_told_who_holds_it(repository: Path, large: Path, process: Run) -> None:
    with slow_export(large) as running:
        done = process("export", "web", "--disk", large)
        assert done.code == 9
        assert f"process {running.pid}" in done.err
        assert os.uname().nodename in done.err
    done = process("export", "web", "--disk", large)
    assert done.code == 0, done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_export_goes_on(
    repository: Path, large: Path, number: signal.Signals, code: int, process: Run
) -> None:
    with slow_export(large) as running:
        time.sleep(1.5)
        running.send_signal(number)
        out, err = running.communicate(timeout=30)
    assert running.returncode == code
    assert err.splitlines()[0] == "failback: export was interrupted"
    assert "run the same command again" in err
    assert "stored already" in err
    result = json.loads(out.splitlines()[-1])
    assert (result["ok"], result["exit_code"]) == (False, code)
    assert process("list", "--json").result["machines"] == []
    done = process("export", "web", "--disk", large, "--json").result
    assert (done["point"], done["resumed"]) == ("web@1", True)
    assert process("verify", "web", "--disk", large).code == 0


def test_an_interrupted_import_goes_on(
    repository: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: Run
) -> None:
    assert process("export", "web", "--disk", large).code == 0
    arguments = ("import", "web", "--out", tmp_path / "out")
    environment = {**os.environ, "FAILBACK_DOWNLOAD_LIMIT": "24M"}
    running = subprocess.Popen(
        command(*arguments, "--json"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    for line in running.stdout:
        if json.loads(line).get("written", 0) > 0:
            break
    running.send_signal(signal.SIGINT)
    _out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "run the same command again" in err
    assert process(*arguments).code == 0
    assert process("verify", "web", "--disk", tmp_path / "out" / "web-disk0.raw").code == 0


def test_no_secret_in_log_output_or_process_list(
    repository: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: Run
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "squeamish-ossifrage")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-esteem")
    with slow_export(large, "--verbose") as running:
        seen = Path(f"/proc/{running.pid}/cmdline").read_bytes()
        assert b"squeamish" not in seen
    for arguments in (
        ("list", "-r", "s3://key:squeamish-ossifrage@bucket/x"),
        ("list", "-r", "s3://bucket/x?secret=squeamish-ossifrage"),
        ("export", "web", "--disk", "nbd://user:hunter2hunter2@host/squeamish-ossifrage"),
        ("show", "web@token-of-esteem"),
    ):
        done = process(*arguments)
        assert done.code
        for text in (done.err, done.out):
            assert "squeamish" not in text
            assert "esteem" not in text
            assert "hunter2" not in text
    text = (tmp_path / "state" / "failback.log").read_text()
    assert "list -r" in text
    for secret in ("squeamish", "esteem", "hunter2"):
        assert secret not in text
