"""What the contract suite needs of a platform beside its importer: eyes and hands that are not the importer's own."""

from __future__ import annotations

import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, punch

from manifests.machine import Machine, Nic
from pipeline.catalogue import Point
from pipeline.home.control import Controller
from pipeline.home.folder import Places
from pipeline.mapping import Mapping, parse_mapping
from pipeline.store.base import Store
from pipeline.target import Abilities, Context, Importer, Place, Stage, marker_of
from pipeline.wanted import Wanted, resolve

MACHINE = "vm"
SIZES = (2 * MIB, MIB + 512)


class Harness(ABC):
    """A platform under test, empty, and a repository with two points of one machine with two disks.

    For an importer of your own: make a subclass, and name it in `HARNESSES` of conftest.py.
    """

    target: str
    """Name of the platform, for its options in the mapping."""
    network = "lan"
    """One that exists there."""
    reads_back = True
    """`content` can be compared with the source byte by byte."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bench = Workbench(root / "bench", self.store())
        self.state = root / "target"
        self.sources: dict[int, list[bytes]] = {}
        """Content of the disks at points 1 and 2."""
        self._export()

    # -- to be filled in -------------------------------------------------------------------------------------------

    @abstractmethod
    def make(self, context: Context) -> Importer:
        """A fresh importer, as a new process would make it."""

    @abstractmethod
    def things(self) -> list[str]:
        """All that is on the platform, half made or whole, seen from outside: disks, layers, machines, processes.
        Sorted, and named by what they are, so that two undisturbed runs give the same. Empty at the beginning."""

    @abstractmethod
    def content(self, stage: Stage, number: int) -> bytes:
        """Of a staged disk."""

    @abstractmethod
    def scribble(self, stage: Stage, number: int) -> None:
        """Somebody else writes to a staged disk."""

    @abstractmethod
    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        """Run `action`, but end it as a kill would before the `nth` thing (from 1) that it does to the platform, and at
        -nth right after it. False: it came to its end before."""

    def store(self) -> Store | None:
        """Of the repository; None: one in memory."""
        return None

    def ran(self, importer: Importer, place: Place) -> None:
        """The machine runs, its guest writes to its first disk, and it is off again."""
        raise NotImplementedError

    def machine_content(self, place: Place, number: int) -> bytes:
        """What the machine, off, has on a disk."""
        raise NotImplementedError

    def existing(self) -> str:
        """Make something that can be adopted; its reference."""
        raise NotImplementedError

    def mapping(self) -> dict[str, object]:
        """What the mapping says beside networks."""
        return {}

    # -- for the tests ---------------------------------------------------------------------------------------------

    @property
    def marker(self) -> uuid.UUID:
        return marker_of(self.bench.repository.document.id, "contract", MACHINE)

    @contextmanager
    def open(self, control: Controller | None = None) -> Iterator[Importer]:
        """A fresh importer."""
        places = Places(self.root / "state")
        importer = self.make(
            Context(
                self.bench.repository,
                self.state,
                control or Controller(),
                lambda marker: places.of(self.target, marker),
                options=parse_mapping(self.mapping(), where="the harness").options.get(self.target, {}),
                parallel=2,
                out=self.root / "out",
            )
        )
        try:
            yield importer
        finally:
            importer.close()

    @property
    def abilities(self) -> Abilities:
        with self.open() as importer:
            return importer.abilities

    def point(self, sequence: int = 1) -> Point:
        return self.bench.point(sequence, MACHINE)

    def wanted(self, sequence: int = 1, **said: object) -> Wanted:
        mapping: Mapping = parse_mapping({"networks": {"*": self.network}} | self.mapping(), where="the harness")
        return resolve(mapping.said(**said), self.point(sequence).manifest, self.target)

    def staged(self, importer: Importer, sequence: int = 1) -> Place:
        """The place, as it is found once the point is staged."""
        point, wanted = self.point(sequence), self.wanted(sequence)
        importer.stage(importer.prepare(point, wanted, self.marker), point, wanted)
        return self.found(importer)

    def found(self, importer: Importer) -> Place:
        place = importer.find(self.marker)
        assert place is not None, "nothing bears the marker"
        return place

    def equals(self, stage: Stage, sequence: int) -> bool:
        """The staged disks are those of the point; what is behind their end is zero."""
        for number, source in enumerate(self.sources[sequence]):
            content = self.content(stage, number)
            if content[: len(source)] != source or content[len(source) :].strip(b"\0"):
                return False
        return True

    def _export(self) -> None:
        folder = self.root / "sources"
        folder.mkdir(parents=True)
        first = make_disk(folder / "0", SIZES[0], {0: noise(5 * CHUNK, 1), MIB: noise(3 * CHUNK, 2)})
        second = make_disk(folder / "1", SIZES[1], {CHUNK: noise(2 * CHUNK, 3), MIB: b"tail"})
        hardware = Machine(name=MACHINE, memory_bytes=256 << 20, nics=(Nic(mac="52:54:00:00:00:01", network="old"),))
        for sequence in (1, 2):
            self.bench.export(first, second, machine=MACHINE, hardware=hardware)
            self.sources[sequence] = [first.read_bytes(), second.read_bytes()]
            poke(first, 6 * CHUNK, noise(CHUNK, 4))
            punch(first, MIB, CHUNK)
            poke(second, MIB + 10, b"changed")
        shutil.rmtree(folder)
