"""What an effect is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pipeline.catalogue import Point, latest, load
from pipeline.errors import CatalogueError, RunRefused, SourceUnavailable, Superseded, VerifyError
from pipeline.home.control import Controller
from pipeline.home.site import Ground, Site, open_site
from pipeline.plans.model import Group, MachinePlan, Plan
from pipeline.repository import Repository
from pipeline.runs.fold import RunState
from pipeline.runs.ownership import Epoch, current
from pipeline.source import Source
from pipeline.wanted import Wanted, resolve

Result = dict[str, Any]


class ClockSuspect(VerifyError):
    """A clock that deadlines or users go by is wrong."""


class ForeignChange(RunRefused):
    """Something that this run looks after is other than it left it: a person has to look."""


@dataclass(frozen=True, slots=True)
class Job:
    """One effect of one run, with the world around it. `state` is what the journal says, and goes on to
    say while the effect works."""

    run: str
    plan: Plan
    state: RunState
    ground: Ground
    source: Source
    verb: str
    subject: str
    confirm: Callable[[], None]
    """Raises Superseded when somebody else conducts the run by now: called before what cannot be called back."""
    now: Callable[[], datetime]
    """The store's time."""

    @property
    def repository(self) -> Repository:
        return self.ground.repository

    @property
    def control(self) -> Controller:
        return self.ground.control

    @property
    def machine(self) -> MachinePlan:
        return self.plan.machines[self.subject]

    @property
    def settings(self) -> dict[str, Any]:
        return self.machine.source

    @property
    def group(self) -> Group:
        return self.plan.group_of(self.subject)

    def site(self, machine: str = "") -> AbstractContextManager[Site]:
        return open_site(self.ground, self.plan.target, machine or self.subject, "import")

    def wanted(self, point: Point) -> Wanted:
        return resolve(self.plan.mapping, point.manifest, self.plan.target)

    def newest(self, machine: str = "") -> Point | None:
        return latest(self.repository, machine or self.subject)

    def point(self, machine: str = "") -> Point:
        """The one that comes home: of the set, where there is one yet, else what was staged, else the newest."""
        name = machine or self.subject
        for effect in (self.state.effect(f"final/{name}"), self.state.staged(name)):
            if sequence := effect.result.get("sequence"):
                point = load(self.repository, name, int(sequence))
                if point is None:
                    raise CatalogueError(f"{name}@{sequence} is void", remedy=f"`failback list {name}`")
                return point
        point = self.newest(name)
        if point is None:
            raise CatalogueError(f"{name} has no recovery point", remedy=f"`failback export {name} --disk ...`")
        return point

    def epoch(self, *, ours: bool = True) -> Epoch:
        """The newest of this machine. With `ours`, raises Superseded when it is another run's."""
        epoch = current(self.repository, self.subject)
        if ours and epoch.run != self.run:
            raise Superseded(
                f"{self.subject} is {epoch.side} now"
                + (f", by run {epoch.run}" if epoch.run else ", and this run's claim on it is gone"),
                remedy="somebody else moved it: look there, then `failback run cancel` or `rollback` this run",
            )
        return epoch

    def check_off(self, machine: str = "") -> None:
        """Raises ForeignChange when the takeover side, which was proved off before, is seen to run again."""
        name = machine or self.subject
        try:
            state = self.source.observe(name, self.plan.machines[name].source)
        except SourceUnavailable:
            return  # what was proved stands, or who vouched
        if state.power == "on":
            who = self.state.vouched.get(name)
            despite = f", though it was vouched for being off by {who}" if who else ""
            raise ForeignChange(
                f"{name} runs at the takeover site{despite}",
                remedy="somebody started it there: look which side has what users wrote, switch the other one off",
            )

    def with_control(self, control: Controller) -> Job:
        return replace(self, ground=replace(self.ground, control=control))
