"""`guest`: a command that the guest's agent runs."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.verify.hook import Attempt, Hook, Outcome, not_applicable
from pipeline.verify.hooks.answer import Expected, judged
from pipeline.verify.short import split_expected
from pipeline.verify.subject import Subject


def _words(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


class GuestSettings(Expected):
    command: Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)]
    """Program and arguments; a text is split as a shell does, and nothing else of a shell happens."""


class GuestHook(Hook[GuestSettings]):
    """The agent may not be up yet: an attempt without an answer is a failed one."""

    Settings = GuestSettings
    form = "guest:COMMAND or guest:COMMAND=OUTPUT, for example guest:'systemctl is-active nginx'=active"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        command, output = split_expected(rest)
        return {"command": command} | ({} if output is None else {"output": output})

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        if "command" not in subject.abilities.guest:
            return not_applicable("this platform runs no commands in guests")
        result = subject.command(self.settings.command, seconds=attempt.seconds)
        return judged(self.settings, result.exit_code, result.output, result.error)
