"""exec: any program, with its document, in its time, and without our secrets."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from simulators.subject import FakeSubject

from manifests.machine import Machine
from pipeline.errors import UsageError
from pipeline.target import Endpoint, Observation
from pipeline.verify.checks import Check, hook_of
from pipeline.verify.hook import Attempt
from pipeline.verify.hooks.exec import own_name
from pipeline.verify.process import run
from verify.hooks.looking import Look


def script(folder: Path, text: str) -> str:
    path = folder / "hook.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_program_gets_a_document_and_may_leave_files(subject: FakeSubject, look: Look, tmp_path: Path) -> None:
    subject.machine = Machine(name="db-1", cpus=4, raw={"license": "private"})
    subject.observation = Observation("on", addresses=("10.0.2.15",), hostname="db")
    subject.endpoints = {5432: Endpoint("127.0.0.1", 40123, relayed=True)}
    folder = subject.artifacts / own_name("looked at")
    path = script(tmp_path, f'cat > document; cp document "{folder}/copy.json"; echo fine "$1"')
    outcome = look("exec", path=path, arguments=["a b"], ports=[5432, 53])
    assert (outcome.status, outcome.seen) == ("passed", "fine a b")
    (kept,) = outcome.artifacts
    document: dict[str, Any] = json.loads(kept.read_text())
    assert document["machine"]["name"] == "db-1"
    assert document["machine"]["cpus"] == 4
    assert "private" not in kept.read_text()
    assert document["endpoints"] == {"5432": {"host": "127.0.0.1", "port": 40123, "relayed": True}, "53": None}
    assert document["artifacts"] == str(kept.parent)
    assert (document["version"], document["check"], document["attempt"]) == (1, "looked at", 1)
    assert (document["hostname"], document["addresses"], document["isolated"]) == ("db", ["10.0.2.15"], True)
    assert document["networks"][0]["name"] is None


def test_two_checks_with_like_names_do_not_share_a_folder(subject: FakeSubject, tmp_path: Path) -> None:
    text = """folder=$(sed 's/.*"artifacts": "\\([^"]*\\)".*/\\1/'); echo "$folder" > "$folder/where" """
    hook = hook_of(Check(name="x", hook="exec", settings={"path": script(tmp_path, text)}))
    names = ["a b", "a-b", "a/b", "a" * 130, "a" * 131]
    kept = [hook.look(subject, Attempt(name, 1, 10.0)).artifacts for name in names]
    assert len({paths[0] for paths in kept}) == len(names)
    for [path] in kept:
        assert path.read_text().strip() == str(path.parent.absolute()), "another check emptied it"
    assert own_name("a-b") == "a-b"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "status", "seen"),
    [
        ("exit 0", "passed", "exit code 0"),
        ("echo one; echo two", "passed", "two"),
        ("""echo '{"seen": "17 orders", "other": 1}'""", "passed", "17 orders"),
        ("""echo '{broken'""", "passed", "{broken"),
        ("printf 'red \\033[31malert\\n'", "passed", "red alert"),
        ("echo no such network; exit 77", "not applicable", "no such network"),
        ("echo down; exit 1", "failed", "exit code 1: down"),
        ("echo trouble >&2; exit 3", "failed", "exit code 3: trouble"),
        ("kill -SEGV $$", "failed", "exit code 139"),
        ("exit 126", "failed", "exit code 126"),
    ],
)
def test_exit_code_and_last_line_are_the_result(look: Look, tmp_path: Path, text: str, status: str, seen: str) -> None:
    outcome = look("exec", path=script(tmp_path, text))
    assert (outcome.status, outcome.seen) == (status, seen)
    assert outcome.artifacts == ()


def test_the_whole_process_group_is_killed_at_the_end_of_its_time(look: Look, tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    path = script(tmp_path, f"exec 3>{fifo}\necho started >&3\nsleep 1000 &\necho waiting\nwait")
    outcome = look("exec", path=path, attempt=Attempt("looked at", 1, 1.0))
    assert (outcome.status, outcome.seen) == ("failed", "killed after 1 s: waiting")
    assert os.read(reader, 100) == b"started\n"
    assert os.read(reader, 100) == b""  # end of file: nobody holds the other end any more
    os.close(reader)


def test_cancelling_ends_the_program(look: Look, tmp_path: Path) -> None:
    attempt = Attempt("looked at", 1, 600.0)
    threading.Timer(0.3, attempt.cancelled.set).start()
    assert look("exec", path=script(tmp_path, "sleep 600"), attempt=attempt).seen.startswith("killed")


def test_what_a_program_leaves_running_ends_with_it_and_does_not_hold_the_check_up(look: Look, tmp_path: Path) -> None:
    outcome = look("exec", path=script(tmp_path, "sleep 1000 &\necho done"), attempt=Attempt("looked at", 1, 60.0))
    assert (outcome.status, outcome.seen) == ("passed", "done")


def test_the_program_dies_with_us(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    path = script(tmp_path, f"exec 3>{fifo}\necho ready >&3\nexec sleep 1000")
    code = "import sys, threading; from pipeline.verify.process import run; "
    code += "run([sys.argv[1]], seconds=600, cancelled=threading.Event())"
    with subprocess.Popen([sys.executable, "-c", code, path]) as process:
        os.set_blocking(reader, True)
        assert _read(reader) == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert _read(reader) == b""
    os.close(reader)


def _read(reader: int) -> bytes:
    """The next bytes, or end of file once somebody has had the other end open."""
    ready, _, _ = select.select([reader], [], [], 20)
    assert ready, "nothing came"
    return os.read(reader, 100)


def test_no_secret_of_ours_reaches_the_program_and_none_of_its_own_the_result(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-store")
    monkeypatch.setenv("PGPASSWORD", "of-the-check")
    path = script(tmp_path, 'env > seen; echo "password is $PGPASSWORD"')
    outcome = look("exec", path=path, environment=["PGPASSWORD"])
    assert outcome.seen == "password is ***"
    given = Path("seen").read_text()
    assert "PGPASSWORD=of-the-check" in given
    assert "of-the-store" not in given
    assert "PATH=" in given
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(UsageError, match="PGPASSWORD is not set"):
        look("exec", path=path, environment=["PGPASSWORD"])


def test_a_flood_of_output_is_read_and_only_its_end_kept(tmp_path: Path) -> None:
    path = script(tmp_path, "head -c 50000000 /dev/zero | tr '\\0' 'x'; echo; echo the end")
    ran = run([path], seconds=60, cancelled=threading.Event())
    assert ran.exit_code == 0
    assert ran.output.endswith(b"\nthe end\n")
    assert len(ran.output) <= 64 << 10


def test_a_program_that_reads_nothing_of_a_large_document_does_not_hang(tmp_path: Path) -> None:
    ran = run([script(tmp_path, "echo ok")], seconds=60, cancelled=threading.Event(), stdin=b"x" * (8 << 20))
    assert (ran.exit_code, ran.output) == (0, b"ok\n")


def test_a_program_that_vanished_is_a_final_failure(look: Look, subject: FakeSubject, tmp_path: Path) -> None:
    path = script(tmp_path, "exit 0")
    hook = hook_of(Check(name="x", hook="exec", settings={"path": path}))
    Path(path).unlink()
    outcome = look(hook)
    assert (outcome.status, outcome.final) == ("failed", True)
