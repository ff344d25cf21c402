"""One machine's place at one target, opened for a command."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.home.control import Controller
from pipeline.home.folder import PlaceFolder, Places, Record
from pipeline.importers import open_importer
from pipeline.repository import Repository
from pipeline.target import Abilities, Context, Importer, Journal, Place, marker_of

Run = Literal["import", "verify"]
"""What a place is for; part of its marker."""
RUNS: tuple[Run, ...] = ("import", "verify")


@dataclass(frozen=True, slots=True)
class Ground:
    """What all importers of one command are made with."""

    repository: Repository
    state: Path
    """The state folder of this host."""
    control: Controller = field(default_factory=Controller)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The mapping's, by platform."""
    memory: int = 256 << 20
    parallel: int = 6
    out: Path | None = None
    seeds: tuple[str, ...] = ()
    address: str = ""
    """See `Context.address`."""
    again: tuple[str, ...] = ()
    """See `Context.again`."""

    @property
    def places(self) -> Places:
        return Places(self.state)

    def importer(self, target: str, *, out: Path | None = None) -> Importer:
        """Raises UsageError for a target that is not known."""
        places = self.places

        def journal(marker: uuid.UUID) -> Journal:
            return places.of(target, marker)

        return open_importer(
            target,
            Context(
                repository=self.repository,
                state=self.state / "targets" / target,
                control=self.control,
                journal=journal,
                options=self.options.get(target, {}),
                memory=self.memory,
                parallel=self.parallel,
                out=out or self.out,
                seeds=self.seeds,
                address=self.address,
                pairings=self.state,
                again=self.again,
            ),
        )


@dataclass(frozen=True, slots=True)
class Site:
    """`importer` with one place in view. Made by `open_site`."""

    target: str
    machine: str
    run: Run
    marker: uuid.UUID
    importer: Importer
    folder: PlaceFolder
    ground: Ground

    @property
    def abilities(self) -> Abilities:
        return self.importer.abilities

    @property
    def control(self) -> Controller:
        return self.ground.control

    def find(self) -> Place | None:
        return self.importer.find(self.marker)

    @contextmanager
    def held(self, command: str) -> Iterator[None]:
        """Keep other commands off the place, and remember what this one is about: when it is killed or fails, the
        record goes on to say so. Raises PlaceHeld."""
        with self.folder.held(command):
            record = self.folder.record or Record(
                self.ground.repository.document.id,
                self.target,
                self.machine,
                self.run,
                str(self.ground.out or ""),
            )
            _check_out(record, self.ground.out)
            self.folder.save(record)
            self.folder.change(doing=command)
            yield
            self.folder.change(doing="")


@contextmanager
def open_site(ground: Ground, target: str, machine: str, run: Run) -> Iterator[Site]:
    """Raises UsageError for a target that is not known. Nothing is locked or changed yet."""
    marker = marker_of(ground.repository.document.id, run, machine)
    folder = ground.places.of(target, marker)
    record = folder.record
    out = Path(record.out) if record and record.out and ground.out is None else None
    importer = ground.importer(target, out=out)
    try:
        yield Site(target, machine, run, marker, importer, folder, ground)
    finally:
        importer.close()


def _check_out(record: Record, out: Path | None) -> None:
    if out is not None and record.out != str(out):
        raise UsageError(
            f"{record.name} has its disks {f'in {record.out}' if record.out else 'where the target likes'} already",
            remedy="leave --out away, or take it away first: "
            f"`failback clean {record.machine} --to {record.target} --all`",
        )
