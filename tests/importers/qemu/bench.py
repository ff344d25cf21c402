"""A machine on this host's QEMU, from a repository to power, in few words."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulators.guests import Kind, make_guest
from transfer.support import Workbench

from importers.qemu.target import QemuImporter
from manifests.machine import Machine, Nic
from pipeline.catalogue import Point
from pipeline.finding import Finding
from pipeline.home.control import Controller
from pipeline.home.folder import Places
from pipeline.mapping import parse_mapping
from pipeline.store.base import Store
from pipeline.target import Build, Context, Importer, Intent, Observation, Place, Purpose, marker_of
from pipeline.wanted import Wanted, resolve

HARDWARE = Machine(name="vm", memory_bytes=64 << 20, nics=(Nic(mac="52:54:00:00:00:01", network="old"),))
PATIENCE = 240.0


class Bench:
    """One repository with one machine, and the folder its places are in. Interpreted, unless `said` otherwise."""

    def __init__(
        self, root: Path, *disks: Path, hardware: Machine = HARDWARE, store: Store | None = None, **said: Any
    ) -> None:
        self.root = root
        self.out = root / "out"
        self.bench = Workbench(root / "bench", store)
        self.bench.export(*disks, machine=hardware.name, hardware=hardware)
        self.said = {"networks": {"*": {"isolated": True}}, "options": {"qemu": {"accelerator": "tcg"}}} | said
        self.told: list[str] = []

    @classmethod
    def of_sector(cls, root: Path, kind: Kind, **said: Any) -> Bench:
        root.mkdir(parents=True, exist_ok=True)
        return cls(root, make_guest(root / "guest.raw", kind), **said)

    def importer(self) -> QemuImporter:
        places = Places(self.root / "state")
        return QemuImporter(
            Context(
                self.bench.repository,
                self.root / "target",
                Controller(tell=self.told.append),
                lambda marker: places.of("qemu", marker),
                parallel=2,
                out=self.out,
            )
        )

    @property
    def marker(self) -> uuid.UUID:
        return marker_of(self.bench.repository.document.id, "test", "vm")

    @property
    def point(self) -> Point:
        return self.bench.point(machine="vm")

    def wanted(self, **said: Any) -> Wanted:
        return resolve(parse_mapping(self.said | said, where="the test"), self.point.manifest, "qemu")

    def findings(self, *, purpose: Purpose = "production", boots: bool = True, **said: Any) -> list[Finding]:
        return self.importer().preflight(self.point, self.wanted(**said), Intent(purpose, boots))

    def stage(self, **said: Any) -> Place:
        importer, wanted = self.importer(), self.wanted(**said)
        importer.stage(importer.prepare(self.point, wanted, self.marker), self.point, wanted)
        return self.place

    @property
    def place(self) -> Place:
        place = self.importer().find(self.marker)
        assert place is not None
        return place

    def build(self, purpose: Purpose = "production", **said: Any) -> Build:
        place = self.stage(**said)
        assert place.stage is not None
        return self.importer().build(place, place.stage, self.wanted(**said), purpose)

    def boot(self, build: Build, **said: Any) -> Build:
        return self.importer().boot(build, self.wanted(**said).networks)

    @contextmanager
    def running(self, purpose: Purpose = "production", **said: Any) -> Iterator[Build]:
        """A machine that was switched on; it is gone afterwards."""
        try:
            yield self.boot(self.build(purpose, **said), **said)
        finally:
            self.importer().remove(self.marker)

    @property
    def folder(self) -> Path:
        """Of the machine."""
        [folder] = self.out.glob(f"*-{self.marker}/build-*")
        return folder


def until(importer: Importer, build: Build, seen: Callable[[Observation], bool]) -> Observation:
    """Look at the machine until it shows that; the test fails when it does not."""
    end = time.monotonic() + PATIENCE
    while True:
        now = importer.observe(build)
        if seen(now):
            return now
        assert time.monotonic() < end, f"it shows {now}"
        time.sleep(0.05)
