"""`failback run watch` as a person sees it, on a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipeline.plans.model import Plan
from pipeline.plans.stored import put
from pipeline.repository import Repository
from pipeline.runs.begin import begin
from pipeline.runs.entries import Ended, Held, Intended, Taken
from pipeline.runs.journal import Journal
from pipeline.store.open import open_store

REASON = (
    "verify/web-1: web-1 is not verified: shop answers: failed: status 502 where 200 was wanted, after 31 attempts; "
    "the machine: it answers on port 22"
)
REMEDY = (
    "look at /var/log/nginx/error.log in the guest; then `failback run retry shop`, or `failback run rollback shop`"
)
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A repository with a run that is held in its second wave."""
    address = tmp_path / "repository"
    repository = Repository.init(open_store(str(address), create=True))
    document = {
        "name": "shop",
        "target": "qemu",
        "source": {"kind": "command"},
        "machines": {"db": {}, "web-1": {}},
        "groups": [{"name": "shop", "waves": [["db"], ["web-1"]]}],
    }
    stored, _fresh = put(repository, Plan.model_validate(document), document)
    run = begin(repository, stored).run
    journal = Journal(repository, run)
    journal.append(Taken(conductor=1, process={"pid": 1, "host": "elsewhere"}))
    journal.append(Intended(conductor=1, effect="verify/web-1", attempt=1))
    journal.append(Ended(conductor=1, effect="verify/web-1", attempt=1, done=False, error=REASON, remedy=REMEDY))
    journal.append(Held(conductor=1, state="held", reason=REASON, remedy=REMEDY))
    return address


def shown(address: Path, *, columns: int, rows: int) -> list[str]:
    """What stands on a terminal of that size at the end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "FAILBACK_STATE_DIR": str(address.with_name("state"))}
    for name in ("COLUMNS", "LINES", "FAILBACK_KEY_FILE"):
        environment.pop(name, None)
    command = [
        sys.executable,
        "-m",
        "pipeline.cli.main",
        "--repository",
        str(address),
        "run",
        "watch",
        "shop",
        "--once",
    ]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        assert process.stderr is not None
        errors = process.stderr.read()
    os.close(master)
    assert process.returncode == 0, errors
    # Each frame begins by moving up over the one before.
    return _TERMINAL.sub("", seen.decode().rpartition("\x1b[1A")[2]).rstrip("\n").split("\n")


def test_at_80_columns_every_word_is_there_and_nothing_wraps_by_itself(held: Path) -> None:
    lines = shown(held, columns=80, rows=40)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert REASON in text
    assert REMEDY in text
    assert "wave 2" in text
    assert "going back now costs nothing: the takeover side was not touched" in text
    assert any(line.startswith(" " * 19) and line.strip() for line in lines), "what is carried over hangs"


def test_on_a_small_terminal_what_to_do_is_seen(held: Path) -> None:
    lines = shown(held, columns=60, rows=20)
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 60
    assert "going back now costs nothing" in " ".join(" ".join(lines).split())
