"""A plan of three machines, a repository with a point of each, and platforms in memory on both sides."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from simulators.importer import SimulatedImporter
from simulators.kinds import KINDS
from simulators.platform import Platform
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise

from manifests.machine import Machine, Nic
from pipeline.errors import SourceUnavailable
from pipeline.finding import Finding
from pipeline.home.control import Controller
from pipeline.home.site import Ground, Site, open_site
from pipeline.plans.condition import World
from pipeline.plans.model import Plan
from pipeline.plans.parse import parse_plan
from pipeline.source import SourceAbilities, SourceState
from pipeline.target import Context, Importer

SHOP: dict[str, Any] = {
    "name": "shop",
    "target": "simulated",
    "mapping": {"networks": {"*": "lan"}},
    "source": {"kind": "simulated"},
    "machines": {"db": {}, "web-1": {"needs": ["db"]}, "web-2": {"needs": ["db"]}},
    "groups": [{"name": "shop", "waves": [["db"], ["web-1", "web-2"]]}],
}


def shop(**changed: Any) -> dict[str, Any]:
    """The plan, with some keys changed."""
    return copy.deepcopy(SHOP) | changed


class SimulatedSource:
    """Machines that run, as the test says."""

    def __init__(self) -> None:
        self.abilities = SourceAbilities(changes=True, quiesce="services")
        self.power: dict[str, Any] = {}
        self.found: dict[str, list[Finding]] = {}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.down = False
        """Nothing answers."""

    def able(self, machine: str, settings: Mapping[str, Any]) -> SourceAbilities:
        return self.abilities

    def preflight(self, machine: str, settings: Mapping[str, Any]) -> list[Finding]:
        self.asked.append((machine, settings))
        if self.down:
            raise SourceUnavailable("the platform does not answer", remedy="wait for it")
        return self.found.get(machine, [])

    def observe(self, machine: str, settings: Mapping[str, Any]) -> SourceState:
        self.asked.append((machine, settings))
        if self.down:
            raise SourceUnavailable("the platform does not answer", remedy="wait for it")
        return SourceState(self.power.get(machine, "on"), locked=False)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source and a target of the name `simulated` are installed."""
    folder = tmp_path / "installed" / "simulated-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: simulated\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[failback.sources]\nsimulated = plans.conftest:SimulatedSource\n"
        "[failback.importers]\nsimulated = simulators.importer:SimulatedImporter\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))


@dataclass
class Scene:
    """One world."""

    bench: Workbench
    state: Path
    stack: ExitStack
    plan: Plan
    platform: Platform = field(default_factory=Platform)
    source: SimulatedSource = field(default_factory=SimulatedSource)
    flags: frozenset[str] = frozenset()
    run: str = ""

    @property
    def ground(self) -> Ground:
        return Ground(self.bench.repository, self.state, Controller(), parallel=2)

    def site(self, machine: str) -> Site:
        return self.stack.enter_context(open_site(self.ground, "simulated", machine, "import"))

    def world(self, *, now: datetime | None = None) -> World:
        return World(
            self.bench.repository,
            self.plan,
            now or datetime.now(UTC),
            lambda: self.source,  # type: ignore[arg-type,return-value]
            self.site,
            self.state,
            self.run,
            self.flags,
        )

    def export(self, machine: str = "db", seed: int = 1, **more: Any) -> None:
        disk = make_disk(self.bench.root / f"{machine}.raw", MIB, {0: noise(3 * CHUNK, f"{machine}/{seed}")})
        hardware = Machine(name=machine, memory_bytes=512 << 20, nics=(Nic(network="old"),))
        self.bench.export(disk, hardware=hardware, **more)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    root = tmp_path / "scene"
    root.mkdir()
    with ExitStack() as stack:
        found = Scene(Workbench(root), root / "state", stack, parse_plan(shop(), where="test"))

        def opened(target: str, context: Context) -> Importer:
            assert target == "simulated"
            return SimulatedImporter(context, found.platform, KINDS["like qemu"])

        monkeypatch.setattr("pipeline.home.site.open_importer", opened)
        yield found
