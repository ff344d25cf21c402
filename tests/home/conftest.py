"""The platform in memory, reached through the callers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.importer import SimulatedImporter
from simulators.kinds import KINDS
from simulators.platform import Disk, Platform
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke

from manifests.machine import Machine, Nic
from pipeline.home.arrival import Arrival, Verify
from pipeline.home.bring import bring_home
from pipeline.home.clean import Left, clean
from pipeline.home.control import Controller
from pipeline.home.rehearse import rehearse, try_out
from pipeline.home.site import Ground, Run, open_site
from pipeline.home.stop import Layer, Stopped, stop_machine
from pipeline.mapping import Mapping, parse_mapping
from pipeline.target import Abilities, Context, Importer, Place, marker_of
from pipeline.wanted import Wanted, resolve

LAN = {"networks": {"*": "lan"}}


class Home:
    """One machine with two points, and each command in one call."""

    def __init__(self, root: Path, abilities: Abilities, patch: pytest.MonkeyPatch) -> None:
        root.mkdir()
        self.bench = Workbench(root)
        self.abilities = abilities
        self.platform = Platform()
        self.told: list[str] = []
        self.control = Controller(tell=self.told.append)
        self.mapping = parse_mapping(LAN, where="test")
        self.state = root / "state"
        disk = make_disk(root / "disk", MIB + 512, {0: noise(3 * CHUNK, 1)})
        hardware = Machine(name="vm", memory_bytes=512 << 20, nics=(Nic(network="old"),))
        self.sources: dict[int, bytes] = {}
        for sequence in (1, 2):
            self.bench.export(disk, hardware=hardware)
            self.sources[sequence] = disk.read_bytes()
            poke(disk, 5 * CHUNK, noise(CHUNK, 2))
        patch.setattr("pipeline.home.site.open_importer", self._open)

    def _open(self, target: str, context: Context) -> Importer:
        assert target == "simulated"
        return SimulatedImporter(context, self.platform, self.abilities)

    @property
    def ground(self) -> Ground:
        return Ground(self.bench.repository, self.state, self.control, parallel=2)

    def wanted(self, sequence: int = 1) -> Wanted:
        return resolve(self.mapping, self.bench.point(sequence).manifest, "simulated")

    def bring(self, sequence: int = 1, *, boot: bool = False, **more: Any) -> Arrival:
        with open_site(self.ground, "simulated", "vm", "import") as site:
            return bring_home(site, self.bench.point(sequence), self.wanted(sequence), boot=boot, **more)

    def rehearse(self, sequence: int = 1, verify: Verify | None = None) -> Arrival:
        with open_site(self.ground, "simulated", "vm", "import") as site:
            return rehearse(site, self.bench.point(sequence), self.wanted(sequence), verify=verify)

    def try_out(self, sequence: int = 1, verify: Verify | None = None) -> Arrival:
        return try_out(self.ground, "simulated", self.bench.point(sequence), self.wanted(sequence), verify=verify)

    def stop(self, layer: Layer = "leave", seconds: float = 1) -> Stopped:
        with open_site(self.ground, "simulated", "vm", "import") as site:
            return stop_machine(site, seconds=seconds, layer=layer)

    def clean(self, **more: Any) -> list[Left]:
        return list(clean(self.ground, **more))

    def place(self, run: Run = "import") -> Place | None:
        with open_site(self.ground, "simulated", "vm", run) as site:
            return site.find()

    def marker(self, run: Run = "import") -> str:
        return str(marker_of(self.bench.repository.document.id, run, "vm"))

    def disks(self, role: str, run: Run = "import") -> list[Disk]:
        return self.platform.find_disks(marker=self.marker(run), role=role)

    def things(self) -> list[str]:
        """All that is on the platform, by what it is."""
        disks = [f"{d.tags['role']} {d.tags['number']}" for d in self.platform.disks.values()]
        return sorted(
            [*disks, *(f"machine {m.name} {'on' if m.on else 'off'}" for m in self.platform.machines.values())]
        )

    def killed(self, nth: int, action: Callable[[], object], *, after: bool = False) -> bool:
        """Run `action`; before (or after) its `nth` call to the platform it is as if we had been killed."""
        count, dead = 0, False

        def fault(_name: str, phase: str) -> None:
            nonlocal count, dead
            count += phase == "before"
            dead = dead or (count >= nth and (phase == "after") == after)
            if dead:  # the dead clean nothing up
                raise Killed

        self.platform.fault = fault
        try:
            action()
        except Killed:
            return True
        finally:
            self.platform.fault = lambda _name, _phase: None
        return False

    def map(self, **said: Any) -> Mapping:
        self.mapping = parse_mapping(LAN | said, where="test")
        return self.mapping


class Killed(BaseException):
    """Nothing may catch it."""


Make = Callable[..., Home]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A home with abilities like those of `kind`, some of them changed."""

    def made(kind: str = "like qemu", **changed: Any) -> Home:
        return Home(tmp_path / "home", replace(KINDS[kind], **changed), monkeypatch)

    return made


@pytest.fixture(params=KINDS)
def any_home(request: pytest.FixtureRequest, make: Make) -> Home:
    return make(request.param)


@pytest.fixture
def home(make: Make) -> Home:
    return make()
