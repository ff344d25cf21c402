"""A directory repository, a disk, and `failback` as a process and in this one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app

COMMAND = (sys.executable, "-c", "from pipeline.cli.main import run; run()")
CHUNK = 64 << 10


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        last = self.lines[-1]
        assert last["type"] == "result"
        return last


Run = Callable[..., Done]


@pytest.fixture
def failback() -> Run:
    """Run a command in this process."""

    def run(*arguments: object) -> Done:
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="failback")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def process() -> Run:
    """Run a command as a process of its own."""

    def run(*arguments: object, timeout: float = 60) -> Done:
        done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def command(*arguments: object) -> Sequence[str]:
    return [*COMMAND, *map(str, arguments)]


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What opens the repositories of a test: they are encrypted, as a user's are."""
    path = tmp_path / "key"
    monkeypatch.setenv("FAILBACK_KEY_FILE", str(path))
    return path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a repository, named in the environment."""
    place = tmp_path / "repository"
    monkeypatch.setenv("FAILBACK_REPOSITORY", str(place))
    monkeypatch.setenv("COLUMNS", "200")
    return place


@pytest.fixture
def repository(empty: Path, failback: Run) -> Path:
    """A repository in a directory, named in the environment."""
    assert failback("repository", "init").code == 0
    return empty


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """40 chunks: every second one holds data, and the last is cut."""
    path = tmp_path / "disk.img"
    draw = random.Random(1)
    with open(path, "wb") as file:
        for position in range(0, 40, 2):
            file.seek(position * CHUNK)
            file.write(draw.randbytes(CHUNK))
        file.truncate(40 * CHUNK - 1000)
    return path


@pytest.fixture
def change() -> Callable[[Path, int], None]:
    """Write something new into one chunk of a disk."""

    def write(path: Path, position: int) -> None:
        with open(path, "r+b") as file:
            file.seek(position * CHUNK + 100)
            file.write(os.urandom(64))

    return write


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], str]:
    """What the log says now."""
    path = tmp_path / "state" / "failback.log"
    return lambda: path.read_text() if path.exists() else ""
