"""The contract of verification hooks: one way to look whether a machine works.

A hook is a subclass of `Hook` that an entry point of the group `failback.hooks` names; the name of the entry point is
what a check calls it. It says three things about itself:

    class Redis(Hook[RedisSettings]):
        Settings = RedisSettings        # a pydantic model (manifests.machine.Model): the check's `settings:`
        form = "redis:PORT"             # the short form of the command line, shown in messages

        @classmethod
        def short(cls, rest: str) -> dict[str, Any]:     # settings from what follows `redis:`; ValueError when wrong
            return {"port": rest}

        def ports(self) -> tuple[int, ...]:              # TCP ports of the guest to be forwarded before it boots
            return (self.settings.port,)

        def look(self, subject: Subject, attempt: Attempt) -> Outcome: ...

One object is made for each check, so it may remember what earlier attempts saw. `look` is one attempt, in a thread of
its own. It returns within `attempt.seconds` and looks at `attempt.cancelled` when it waits. It says what it *saw*,
above all when it failed; it never sleeps for a better result: the runner calls again. A machine that cannot be looked
at in this way on this platform is `not applicable`, which never counts as passed.

FailbackError from `look` is a failed attempt (UsageError: a check that is set up wrongly, not tried again); any other
exception is reported as an error of the hook. `seen` holds no secrets: what a user may have put into environment
variables or files is not repeated.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from manifests.machine import Model
from pipeline.verify.retry import Retry
from pipeline.verify.subject import Subject

if TYPE_CHECKING:
    from pipeline.verify.results import CheckResult

S = TypeVar("S", bound=Model)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt found. `final`: another attempt would find the same."""

    status: Literal["passed", "failed", "not applicable"]
    seen: str
    artifacts: tuple[Path, ...] = ()
    final: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of the check named `check`; the first has number 1."""

    check: str
    number: int
    seconds: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the outcome any more."""
    so_far: tuple[CheckResult, ...] = ()
    """Of the other checks, those that have ended."""


class Hook(ABC, Generic[S]):
    """See the module's docstring."""

    Settings: ClassVar[type[Model]]
    form: ClassVar[str]
    retry: ClassVar[Retry] = Retry()
    """Where the check says nothing."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @classmethod
    @abstractmethod
    def short(cls, rest: str) -> dict[str, Any]:
        """Settings from the short form, without `NAME:`. Raises ValueError that says what is wrong."""

    def ports(self) -> tuple[int, ...]:
        """TCP ports of the guest that it connects to."""
        return ()

    @abstractmethod
    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        """One attempt."""


def passed(seen: str, *artifacts: Path) -> Outcome:
    return Outcome("passed", seen, artifacts)


def failed(seen: str, *artifacts: Path) -> Outcome:
    return Outcome("failed", seen, artifacts)


def not_applicable(why: str) -> Outcome:
    return Outcome("not applicable", why, final=True)
