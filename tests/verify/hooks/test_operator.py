"""A person says whether a machine works, and is believed by name."""

from __future__ import annotations

import os
import pty
import select
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulators.kinds import KINDS
from simulators.subject import FakeSubject

from pipeline.home.control import Controller
from pipeline.target import CommandResult
from pipeline.verify.checks import Check
from pipeline.verify.hook import Attempt
from pipeline.verify.person import Said, parse_answer
from pipeline.verify.results import CheckResult
from pipeline.verify.runner import run_checks
from verify.hooks.looking import Look

PNG = b"\x89PNG picture"
BEFORE = CheckResult("it is up", "console", "required", "passed", "login:")


def attempt(seconds: float = 0.2) -> Attempt:
    return Attempt("a person", 1, seconds, so_far=(BEFORE,))


class Terminal:
    """What a person sees, and types."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, wanted: str) -> str:
        end = time.monotonic() + 10
        while wanted not in self.shown:
            assert time.monotonic() < end, self.shown
            if not select.select([self.master], [], [], 0.1)[0]:
                continue
            self.shown += os.read(self.master, 4096).decode()
        return self.shown


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    found = Terminal()
    with open(found.slave, closefd=False) as stdin, open(found.slave, "w", closefd=False) as stderr:
        # Not those of the process: pytest puts its own there.
        monkeypatch.setattr("pipeline.verify.terminal.sys", SimpleNamespace(stdin=stdin, stderr=stderr))
        yield found
        monkeypatch.undo()
    os.close(found.master)
    os.close(found.slave)


def answered(subject: FakeSubject, text: str) -> threading.Thread:
    """Writes an answer once it is asked for."""

    def write() -> None:
        while not subject.questions:
            time.sleep(0.01)
        subject.questions[-1].file.write_text(text)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_without_anybody_it_fails_and_says_how_to_answer(look: Look, subject: FakeSubject) -> None:
    outcome = look("operator", attempt=attempt())
    assert (outcome.status, outcome.final) == ("failed", False)
    assert str(subject.artifacts / "a-person.answer") in outcome.seen
    assert "failback run answer RUN web-1 yes|no" in outcome.seen


def test_a_platform_without_pictures_is_no_excuse(look: Look, subject: FakeSubject) -> None:
    subject.abilities = KINDS["like a gateway"]
    assert look("operator", attempt=attempt()).status == "failed"


@pytest.mark.parametrize(("text", "status"), [("yes Ada Lovelace\n", "passed"), ("No, Ada Lovelace\n", "failed")])
def test_an_answer_beside_the_picture_counts(look: Look, subject: FakeSubject, text: str, status: str) -> None:
    subject.pictures = [PNG]
    writer = answered(subject, text)
    outcome = look("operator", attempt=attempt(10))
    writer.join()
    assert outcome.status == status
    assert outcome.final == (status == "failed")
    assert "Ada Lovelace said" in outcome.seen
    assert f"{datetime.now(UTC):%Y-%m-%d}" in outcome.seen
    [picture] = outcome.artifacts
    assert picture.read_bytes() == PNG
    assert picture.parent == subject.questions[0].file.parent


def test_an_answer_that_was_there_before_is_none(look: Look, subject: FakeSubject) -> None:
    (subject.artifacts / "a-person.answer").write_text("yes Ada\n")
    assert look("operator", attempt=attempt()).status == "failed"


def test_half_an_answer_is_none(look: Look, subject: FakeSubject) -> None:
    writer = answered(subject, "yes A")
    assert look("operator", attempt=attempt(1)).status == "failed"
    writer.join()


def test_an_answer_from_elsewhere_counts(look: Look, subject: FakeSubject) -> None:
    subject.said = Said(True, "ada", datetime(2026, 11, 30, tzinfo=UTC), "entry 7 of the run", "I saw it")
    outcome = look("operator", attempt=attempt())
    assert outcome.status == "passed"
    assert outcome.seen == "ada said yes at 2026-11-30 00:00:00 UTC, entry 7 of the run: I saw it"


def test_at_a_terminal_the_picture_and_the_other_checks_are_shown(
    look: Look, subject: FakeSubject, terminal: Terminal
) -> None:
    subject.pictures = [PNG]
    found: list[Any] = []
    looking = threading.Thread(
        target=lambda: found.append(look("operator", attempt=attempt(20), question="is the shop open?"))
    )
    looking.start()
    shown = terminal.until("your name: ")
    assert "web-1: is the shop open?" in shown
    assert str(subject.artifacts / "a-person.png") in shown
    assert "it is up: passed: login:" in shown
    terminal.type("what?\n")
    terminal.shown = ""
    terminal.until("your name: ")
    terminal.type("yes Ada\n")
    looking.join(10)
    [outcome] = found
    assert outcome.status == "passed"
    assert outcome.seen.startswith("Ada said yes at ")
    assert "at the terminal" in outcome.seen


def test_who_waits_is_told_what_came_before(subject: FakeSubject, tmp_path: Path) -> None:
    subject.pictures = [PNG]
    subject.said = Said(False, "ada", datetime(2026, 11, 30, tzinfo=UTC), "elsewhere")
    checks = [
        Check(name="is active", hook="guest", settings={"command": "true"}),
        Check(name="a person", hook="operator", after=("is active",)),
    ]
    subject.commands = lambda _arguments: CommandResult(0, b"", b"")
    results = run_checks(checks, subject, Controller(), deadline=20)
    assert not results.verified
    [question] = {id(q): q for q in subject.questions}.values()
    assert question.results
    assert question.results[0].startswith("is active: passed")
    assert results.checks[1].attempts == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yes Ada", (True, "Ada")),
        ("NO:  Ada   L ", (False, "Ada L")),
        ("yes", (True, "")),
        ("yesterday", None),
        ("", None),
        ("maybe", None),
    ],
)
def test_answers(text: str, wanted: tuple[bool, str] | None) -> None:
    assert parse_answer(text) == wanted
