"""The contract of conditions: something that must hold before a run goes on, looked at again and again.

A condition is a subclass of `Look` that an entry point of the group `failback.conditions` names. `look` answers for one
moment and changes nothing; what does not hold yet is *waited for*, with what was seen shown to people, never failed.
UsageError: it is set up wrongly and can never hold (found by `failback plan check` too). Any other FailbackError counts
as not holding now, and is what is shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from manifests.machine import Model
from pipeline.home.site import Site
from pipeline.plans.model import Plan
from pipeline.repository import Repository
from pipeline.source import Source

S = TypeVar("S", bound=Model)


@dataclass(frozen=True, slots=True)
class World:
    """What conditions may look at."""

    repository: Repository
    plan: Plan
    now: datetime
    """The store's time, UTC."""
    source: Callable[[], Source]
    site: Callable[[str], Site]
    """The place of a machine at the target."""
    state: Path
    """The state folder of this host."""
    run: str = ""
    """The run that waits; empty: none yet (`plan check`, `schedule`)."""
    flags: frozenset[str] = frozenset()
    """Manual flags that people have set for this run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`seen` says what was looked at and found, for people: "db: newest point is 3 h old, wanted: younger than 1 h"."""

    holds: bool
    seen: str


class Look(ABC, Generic[S]):
    """See the module's docstring."""

    Settings: ClassVar[type[Model]]
    of_run: ClassVar[bool] = False
    """It can hold only for a run that there is: whoever asks whether one should begin leaves it out."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    def check(self, plan: Plan) -> None:
        """Raises UsageError when the settings do not fit the plan. Looks at nothing outside of it."""
        return

    @abstractmethod
    def look(self, world: World) -> Answer: ...


def settings_of(kind: type[Look[Any]], settings: dict[str, Any]) -> Model:
    """Raises pydantic.ValidationError."""
    return kind.Settings.model_validate(settings)
