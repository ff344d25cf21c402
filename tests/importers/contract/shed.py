"""The importer of a package of somebody else under the contract."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable

import pytest
from plugin.shed import importer as shed
from transfer.killing import in_child, kill_at
from transfer.support import poke

from contract.harness import Harness
from pipeline.target import Context, Importer, Place, Stage

DANGER = [(shed, "stage_local"), (shed, "_write"), (shutil, "copy"), (shutil, "rmtree")]


class ShedHarness(Harness):
    target = "shed"
    network = "garden"

    def make(self, context: Context) -> Importer:
        return shed.ShedImporter(context)

    def _folder(self, marker: uuid.UUID) -> shed.Path:
        return self.root / "out" / str(marker)

    def things(self) -> list[str]:
        """What `find` shows is named; the rest by its file."""
        names = [*(self.root / "out").glob("*/disk*.raw"), *(self.root / "out").glob("*/machine/*")]
        names += [
            path
            for name in ("place.json", "machine.json", "dropping.json", "on")
            for path in self.root.glob(f"out/*/{name}")
        ]
        names += (self.root / "out").glob("*.new")
        return sorted("/".join(path.parts[-2:] if path.parent.name == "machine" else path.parts[-1:]) for path in names)

    def content(self, stage: Stage, number: int) -> bytes:
        return (shed.Path(stage.ref["folder"]) / f"disk{number}.raw").read_bytes()

    def scribble(self, stage: Stage, number: int) -> None:
        poke(shed.Path(stage.ref["folder"]) / f"disk{number}.raw", 100, b"somebody was here")

    def ran(self, importer: Importer, place: Place) -> None:
        assert place.build is not None
        importer.boot(place.build, ())
        poke(self._folder(place.marker) / "machine" / "disk0.raw", 0, b"the guest was here")
        importer.stop(place.build, seconds=0)

    def machine_content(self, place: Place, number: int) -> bytes:
        return (self._folder(place.marker) / "machine" / f"disk{number}.raw").read_bytes()

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            kill_at(pytest.MonkeyPatch(), DANGER, nth)
            action()

        return in_child(doomed)
