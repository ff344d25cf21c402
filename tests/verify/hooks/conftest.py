from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simulators.subject import FakeSubject

from pipeline.verify.checks import Check, hook_of
from pipeline.verify.hook import Attempt, Hook, Outcome
from verify.hooks.looking import Look


@pytest.fixture
def subject(tmp_path: Path) -> FakeSubject:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return FakeSubject(folder)


@pytest.fixture
def look(subject: FakeSubject) -> Look:
    """One attempt of a hook: `look("tcp", port=22)`; a hook made before keeps what it remembers."""

    def one(hook: str | Hook[Any], *, attempt: Attempt | None = None, **settings: Any) -> Outcome:
        if isinstance(hook, str):
            hook = hook_of(Check(name="looked at", hook=hook, settings=settings))
        return hook.look(subject, attempt or Attempt("looked at", 1, 10.0))

    return one
