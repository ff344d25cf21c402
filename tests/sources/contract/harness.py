"""What the contract suite needs of a source's platform: eyes and hands that are not the source's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transfer.support import UPLOADS, Workbench

from pipeline.catalogue import Point
from pipeline.errors import UsageError
from pipeline.home.control import Controller
from pipeline.home.folder import PlaceFolder
from pipeline.source import Reading, Source, SourceAbilities, SourceContext, SourceState
from pipeline.target import Control
from pipeline.transfer.export import ExportResult, export_machine
from pipeline.transfer.export_request import ExportOptions

MACHINE = "vm"


class Harness(ABC):
    """A platform with one machine that works: it acknowledges numbers to clients, each after it wrote it to its disk.

    For a source of your own: make a subclass, and name it in `HARNESSES` of conftest.py.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- to be filled in -------------------------------------------------------------------------------------------

    @abstractmethod
    def make(self, context: SourceContext) -> Source:
        """A fresh source, as a new process would make it."""

    def settings(self) -> dict[str, Any]:
        """Of the machine."""
        return {}

    @abstractmethod
    def acknowledged(self) -> int:
        """The last number that the machine acknowledged, whenever that was."""

    @abstractmethod
    def works(self) -> bool:
        """Whether clients get answers; waits for them as long as a machine needs to start."""

    @abstractmethod
    def silent(self) -> bool:
        """Whether clients get no answer for as long as one would take; must not wait for a start."""

    @abstractmethod
    def things(self) -> list[str]:
        """How the platform is, seen from outside: power, locks, how often it was started. Sorted."""

    @abstractmethod
    def pull(self) -> None:
        """A person switches the machine off, hard."""

    @abstractmethod
    def cut(self) -> None:
        """The platform does not answer from now on."""

    @abstractmethod
    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        """Run `action`, but end it as a kill would before the `nth` thing (from 1) that it does to the platform, and at
        -nth right after it. False: it came to its end before."""

    def written(self, disk: bytes) -> int:
        """The last number on the first disk."""
        return int.from_bytes(disk[:8], "little")

    # -- for the tests ---------------------------------------------------------------------------------------------

    @contextmanager
    def open(self, control: Control | None = None) -> Iterator[Source]:
        """A fresh source."""
        source = self.make(
            SourceContext(
                self.root / "source",
                control or Controller(),
                lambda machine: PlaceFolder(self.root / "journal" / machine),
                run="a-run",
            )
        )
        try:
            yield source
        finally:
            source.close()

    @property
    def able(self) -> SourceAbilities:
        with self.open() as source:
            return source.able(MACHINE, self.settings())

    def seen(self) -> SourceState:
        with self.open() as source:
            return source.observe(MACHINE, self.settings())

    def do(self, verb: str, epoch: int = 1, **more: Any) -> None:
        """One verb, by a process of its own. Guests of these tests do not hear a power button for long."""
        if verb == "stop":
            more.setdefault("seconds", 0.3)
        with self.open() as source:
            if verb == "prove_stopped":
                source.prove_stopped(MACHINE, self.settings())
            else:
                getattr(source, verb)(MACHINE, self.settings(), epoch=epoch, **more)

    def read(self, *, final: bool = False, parent: Point | None = None) -> list[bytes]:
        """The content of all disks."""
        with (
            self.open() as source,
            source.reading(MACHINE, self.settings(), parent=parent, final=final) as reading,
        ):
            return [content(reading, number) for number in range(len(reading.disks))]

    def export(
        self, bench: Workbench, *, parent: Point | None = None, final: bool = False, told: bool = True
    ) -> ExportResult:
        """A point; unless the process dies before it is `told`, the source learns of it."""
        with self.open() as source:
            with source.reading(MACHINE, self.settings(), parent=parent, final=final) as reading:
                machine = reading.machine
                if machine is None:
                    raise UsageError("the plan says nothing of the hardware")
                options = ExportOptions(
                    bench.state, final=final, consistency=reading.consistency, uploads=UPLOADS, workers=2
                )
                result = export_machine(bench.repository, machine, reading.disks, options)
            if told:
                source.exported(MACHINE, self.settings(), bench.point(result.sequence, MACHINE))
        return result


def content(reading: Reading, number: int) -> bytes:
    exporter = reading.disks[number].exporter
    data = bytearray(exporter.size)
    for extent in exporter.extents(0, exporter.size):
        if not extent.zero:
            exporter.read_into(extent.offset, memoryview(data)[extent.offset : extent.offset + extent.length])
    return bytes(data)
