"""An estate in memory that comes home to a platform in memory, conducted for real, and killed where a test wants it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulators.importer import SimulatedImporter
from simulators.kinds import KINDS
from simulators.platform import Platform
from simulators.source import Estate, SimulatedSource

from pipeline.home.control import Controller
from pipeline.home.site import Ground
from pipeline.plans.model import Plan
from pipeline.repository import Repository
from pipeline.runs import conductor as conducting
from pipeline.runs.begin import begin
from pipeline.runs.commands import question, tell
from pipeline.runs.conductor import Conductor
from pipeline.runs.crew import Crew, crew_of, source_of
from pipeline.runs.decide import Next
from pipeline.runs.entries import Decided, Purpose
from pipeline.runs.fold import RunState
from pipeline.runs.journal import Journal, state_of
from pipeline.source import Source, SourceContext
from pipeline.store.base import Bytes
from pipeline.store.memory import MemoryStore
from pipeline.target import Context, Importer
from pipeline.transfer.process import Process

MACHINES = ("db", "web-1", "web-2")
DOCUMENT: dict[str, Any] = {
    "name": "shop",
    "target": "simulated",
    "mapping": {"networks": {"*": "lan"}},
    "source": {"kind": "simulated"},
    "machines": {"db": {}, "web-1": {"needs": ["db"]}, "web-2": {"needs": ["db"]}},
    "groups": [{"name": "shop", "waves": [["db"], ["web-1", "web-2"]]}],
    "approvals": {"cutover": False, "gate": False, "commit": True},
    "limits": {"parallel": 1},
}


class Killed(BaseException):
    """As if the process had been killed: nothing it would still do has an effect."""


class WatchedStore(MemoryStore):
    """Tells of every call that changes it, before and after; its clock is `ahead` of this host's."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Callable[[str, str], None] = lambda _name, _phase: None
        self.ahead = timedelta()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        self.fault(f"put {key}", "before")
        super().put(key, data, create=create)
        with self._lock:
            stored, _time = self._objects[key]
            self._objects[key] = (stored, datetime.now(UTC) + self.ahead)
        self.fault(f"put {key}", "after")

    def get(self, key: str) -> memoryview:
        self.fault(f"get {key}", "before")
        return super().get(key)


class Disaster:
    """Three machines at a takeover site, a plan to bring them home, and all that is needed to do so."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.root = root
        self.store = WatchedStore()
        self.repository = Repository.init(self.store)
        self.estate = Estate()
        for name in MACHINES:
            self.estate.add(name, 1 << 18)
        self.platform = Platform()
        self.plan = Plan.model_validate(DOCUMENT | changes)
        self.said: list[str] = []
        self.pids = itertools.count(1 << 23)
        self.bad: dict[str, str] = {}
        """Machines whose checks fail at home, and what they say."""
        self.double: list[str] = []
        """Moments at which a machine ran on both sides."""
        self.run = ""
        self.host = "state"
        """Folder of what the host that conducts remembers."""
        self.flight = 0
        self.looked: list[Any] = []
        """What checks were given to look at."""
        self.paused: Callable[[float], None] = lambda _seconds: None
        """Called while a conductor waits."""
        patch.setattr("pipeline.home.site.open_importer", self._importer)
        patch.setattr("pipeline.runs.crew.open_source", self._source)
        patch.setattr("pipeline.runs.effects.target.run_checks", self._checks)
        patch.setattr(conducting, "BEAT_SECONDS", 3600.0)
        self.estate.fault = self.store.fault = self.platform.fault = self._called
        self._nth, self._after, self._dead, self._only = 0, False, False, ""

    # -- what is conducted -----------------------------------------------------------------------------------------

    def begin(self, purpose: Purpose = "cutover") -> str:
        from pipeline.plans.stored import put

        stored, _fresh = put(self.repository, self.plan, self.plan.model_dump(mode="json"))
        self.run = begin(self.repository, stored, purpose).run
        return self.run

    def conductor(self) -> Conductor:
        control = Controller()
        ground = Ground(self.repository, self.root / self.host, control, parallel=2)
        source = source_of(ground, self.plan, control)
        crew = crew_of(ground, self.plan, source, control, tell=lambda _e, text: self.said.append(text))
        crew = Crew(**{f: getattr(crew, f) for f in crew.__dataclass_fields__} | {"pause": self._pause})
        here = Process.current()
        return Conductor(crew, self.run, here=Process(**(here.document() | {"pid": next(self.pids), "pid_start": 1})))

    def conduct(self, **how: Any) -> Next:
        return self.conductor().conduct(**how)

    def state(self) -> RunState:
        return state_of(Journal(self.repository, self.run))

    def tell(self, verb: str, what: str = "", **more: Any) -> None:
        word = {"verb": verb, "what": what, **more}
        if verb in ("approve", "reject"):
            word["what"], word["binding"] = question(self.state(), self.plan, what)
        tell(self.repository, self.run, self.plan, Decided(**word), by="ada")

    def later(self, passed: timedelta) -> None:
        """Time passes, by the clocks of the store and of all guests."""
        self.store.ahead += passed
        self.platform.ahead += passed.total_seconds()

    # -- what became of it -----------------------------------------------------------------------------------------

    def at_home(self) -> dict[str, bool]:
        """By machine that is built for production: whether it is on."""
        return {
            m.tags["machine"]: m.on for m in self.platform.machines.values() if m.tags.get("purpose") == "production"
        }

    def restored(self, machine: str) -> int:
        """The number of the last request that its staged disk knows."""
        [disk] = [d for d in self.platform.find_disks(role="stage", number="0") if d.tags["machine"] == machine]
        return int.from_bytes(disk.data[:8], "little")

    def works_at_takeover(self) -> list[str]:
        return [name for name, machine in self.estate.machines.items() if machine.works]

    # -- killing ---------------------------------------------------------------------------------------------------

    def killed(self, nth: int, action: Callable[[], object], *, after: bool = False, only: str = "") -> bool:
        """Whether `action` was killed at its nth call (of those whose names begin with `only`)."""
        self._nth, self._after, self._dead, self._only = nth, after, False, only
        try:
            action()
        except Killed:
            return True
        finally:
            self._nth, self._dead = 0, False
        return False

    def _called(self, name: str, phase: str) -> None:
        if self._dead:
            raise Killed
        self._live()
        if self._nth and name.startswith(self._only) and phase == ("after" if self._after else "before"):
            self._nth -= 1
            if self._nth == 0:
                self._dead = True
                raise Killed

    def _live(self) -> None:
        """A moment passes: clients write, and somebody looks at both sides."""
        home = self.at_home()
        for name, machine in self.estate.machines.items():
            self.estate.request(name)
            if machine.power == "on" and home.get(name):
                self.double.append(name)

    # -- the seams -------------------------------------------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        self.flight += 1
        assert self.flight < 2000, "it waits for ever"
        self.paused(seconds)

    def _importer(self, target: str, context: Context) -> Importer:
        return SimulatedImporter(context, self.platform, KINDS["like a hypervisor's worker"])

    def _source(self, kind: str, context: SourceContext) -> Source:
        assert kind == "simulated"
        return SimulatedSource(context, self.estate)

    def _checks(self, checks: Any, subject: Any, control: Any) -> Any:
        from pipeline.verify.results import CheckResult, Results

        name = subject.machine.name
        self.looked.append(SimpleNamespace(machine=name, fresh=subject.fresh, artifacts=subject.artifacts))
        wrong = self.bad.get(name, "")
        status: Any = "failed" if wrong or subject.observe().power != "on" else "passed"
        return Results(name, (CheckResult("answers", "tcp", "required", status, wrong or "it answers", 1, 0.1),), 0.1)


@pytest.fixture
def disaster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Disaster]:
    """Makes one; arguments are what its plan says otherwise."""
    numbers = itertools.count()

    def make(**changes: Any) -> Disaster:
        root = tmp_path / f"disaster{next(numbers)}"
        root.mkdir()
        return Disaster(root, monkeypatch, **changes)

    return make
