"""The contract of traffic steps: what lets users in to a group, each with its undo.

A step is a subclass of `Gate` that an entry point of the group `failback.traffic` names. All verbs may be called again
after a kill or a lost answer. While a group's machines are tried out at home every step is closed; they are opened in
the plan's order and closed in the reverse one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from manifests.machine import Model
from pipeline.finding import Finding
from pipeline.plans.model import Group, Plan
from pipeline.target import Build, Control, Importer
from pipeline.wanted import Wanted

S = TypeVar("S", bound=Model)
State = Literal["open", "closed", "unknown"]


@dataclass(frozen=True, slots=True)
class Way:
    """What a step is about."""

    group: str
    run: str
    control: Control
    at_home: Callable[[str], tuple[Importer, Build]]
    """The machine of that name, as it runs at home. Raises TargetError when it is not there."""
    environment: Mapping[str, str]
    """For commands: FAILBACK_RUN, FAILBACK_GROUP, FAILBACK_MACHINES (names, one a line) and FAILBACK_EPOCH (of each of
    them, one a line)."""


class Gate(ABC, Generic[S]):
    """See the module's docstring."""

    Settings: ClassVar[type[Model]]

    def __init__(self, settings: S) -> None:
        self.settings = settings

    def check(self, plan: Plan, group: Group) -> None:
        """Raises UsageError when the settings do not fit the plan. Looks at nothing outside of it."""
        return

    def preflight(self, machine: str, importer: Importer, wanted: Wanted) -> list[Finding]:
        """What can be known before anything moves about one machine of the group, which is to become `wanted` at the
        importer's platform. Changes nothing. Raises FailbackError when the platform cannot be asked."""
        return []

    @abstractmethod
    def open(self, way: Way) -> str:
        """Let users in. Returns what was done, for the record. Raises FailbackError."""

    @abstractmethod
    def close(self, way: Way) -> str:
        """Keep users out: the undo of `open`, also of one that was cut short."""

    @abstractmethod
    def observe(self, way: Way) -> State:
        """unknown where nobody can say."""
