"""What a guest says may be chosen to keep us busy."""

from __future__ import annotations

import threading

import pytest
from simulators.subject import FakeSubject

from pipeline.errors import TargetError
from pipeline.target import CommandResult
from pipeline.verify.hooks import text
from pipeline.verify.hooks.text import search
from verify.hooks.looking import Look


def test_an_expression_is_searched_for_as_python_does() -> None:
    found = search(r"^b(?P<digit>\d)\s*$", "a\nb1\nc")
    assert found is not None
    assert (found["digit"], found.start(), found.end()) == ("1", 2, 4)
    assert search(r"(?i)READY$", "not\nalready\nyet") is not None
    assert search(r"^ready", "already") is None


def test_a_search_without_end_is_given_up_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SEARCH_SECONDS", 0.5)
    given_up: list[TargetError] = []

    def look() -> None:
        with pytest.raises(TargetError, match="was given up") as caught:
            search(r"(a|a)+$", "a" * 1000 + "b")
        given_up.append(caught.value)

    thread = threading.Thread(target=look)
    thread.start()
    steps = 0
    while thread.is_alive():
        thread.join(0.01)
        steps += 1
    assert steps > 5, "this thread stood still meanwhile"
    assert given_up


def test_a_check_whose_expression_takes_too_long_fails_and_says_so(
    subject: FakeSubject, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "SEARCH_SECONDS", 0.1)
    subject.commands = lambda _arguments: CommandResult(0, b"a" * 1000 + b"b", b"")
    with pytest.raises(TargetError, match="was given up"):  # which the runner takes for a failed attempt
        look("guest", command="cat", regex="(a|a)+$")
