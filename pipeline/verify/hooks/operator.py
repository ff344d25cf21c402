"""`operator`: a person looks, and says yes or no.

The person is shown the console's picture and what the other checks found so far (let this one come `after` them), and
answers with a name: at the terminal of the command; or, from anywhere, by `failback run answer RUN MACHINE yes|no`
where a run checks; or by a file beside the picture, named like it but for `.answer`, with the line `yes NAME`. What
was said, by whom and when is what the check saw. Where nobody answers within the check's time it has failed.
"""

from __future__ import annotations

import getpass
import os
import pwd
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manifests.machine import Model
from pipeline.errors import FailbackError
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, passed
from pipeline.verify.hooks.text import plain
from pipeline.verify.person import Question, Said, parse_answer
from pipeline.verify.retry import Retry
from pipeline.verify.subject import Subject, safe_name
from pipeline.verify.terminal import ask_line, there_is_one

POLL_SECONDS = 0.5


class OperatorSettings(Model):
    question: str = "does it work?"
    """What the person is asked."""


class OperatorHook(Hook[OperatorSettings]):
    Settings = OperatorSettings
    form = "operator or operator:QUESTION"
    retry = Retry(interval=0.5, factor=1, max=0.5)
    """An attempt is a part of the waiting."""

    def __init__(self, settings: OperatorSettings) -> None:
        super().__init__(settings)
        self._question: Question | None = None
        self._shown = False

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        return {"question": rest.strip()} if rest.strip() else {}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        question = self._question = self._question or self._asked(subject, attempt)
        pictures = (question.picture,) if question.picture else ()
        said = self._answer(subject, question, attempt)
        if said is None:
            return failed(
                f"nobody answered {question.text!r}: say it at the command's terminal, write `yes NAME` or `no NAME` "
                f"into {question.file}, or, in a run, `failback run answer RUN {question.machine} yes|no`; `within:` "
                "of the check is how long it waits",
                *pictures,
            )
        if said.yes:
            return passed(str(said), *pictures)
        return Outcome("failed", str(said), pictures, final=True)

    def _asked(self, subject: Subject, attempt: Attempt) -> Question:
        """Put once. An answer that was there before is none to this."""
        name = safe_name(attempt.check)
        file = subject.artifacts / f"{name}.answer"
        file.unlink(missing_ok=True)
        picture = None
        with suppress(FailbackError):
            if "picture" in subject.abilities.console and (png := subject.picture()) is not None:
                picture = subject.save(f"{name}.png", png)
        results = tuple(f"{other.name}: {other.status}: {other.seen}" for other in attempt.so_far)
        return Question(subject.machine.name, attempt.check, self.settings.question, picture, results, file)

    def _answer(self, subject: Subject, question: Question, attempt: Attempt) -> Said | None:
        """None: not within this attempt."""
        until = time.monotonic() + attempt.seconds
        found: list[Said] = []

        def elsewhere() -> bool:
            said = subject.asked(question) or _in_file(question.file)
            found.extend([said] if said else [])
            return bool(found) or attempt.cancelled.is_set()

        while not elsewhere() and (left := until - time.monotonic()) > 0:
            if not there_is_one():
                attempt.cancelled.wait(min(left, POLL_SECONDS))
                continue
            answer = parse_answer(ask_line(self._prompt, seconds=left, ended=elsewhere) or "")
            if answer is not None:
                return Said(answer[0], answer[1] or getpass.getuser(), datetime.now(UTC), "at the terminal")
        return found[0] if found else None

    def _prompt(self) -> str:
        """All there is to see the first time, one line from then on."""
        assert self._question is not None
        lines = [] if self._shown else map(plain, self._question.lines())
        self._shown = True
        return "".join(f"{line}\n" for line in lines) + f"  {self._question.machine}: yes or no, and your name: "


def _in_file(file: Path) -> Said | None:
    """Half a line is none: it is being written."""
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            text, about = opened.read(4096), os.fstat(opened.fileno())
    except OSError:
        return None
    answer = parse_answer(text) if "\n" in text else None
    if answer is None:
        return None
    return Said(answer[0], answer[1] or _owner(about.st_uid), datetime.fromtimestamp(about.st_mtime, UTC), f"in {file}")


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
