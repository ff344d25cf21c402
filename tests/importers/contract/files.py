"""`--to files` under the contract: disks, no machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import poke

from contract.harness import MACHINE, Harness
from importers.files.target import FilesImporter
from pipeline.target import Context, Importer, Stage
from pipeline.transfer import local
from pipeline.transfer.stage import Stage as Known
from pipeline.writers.raw import RawWriter

DANGER = [(local, "open_writer"), (local, "put_mark"), (Known, "save"), (RawWriter, "write"), (RawWriter, "flush")]


class FilesHarness(Harness):
    target = "files"

    def make(self, context: Context) -> Importer:
        return FilesImporter(context)

    def _file(self, number: int) -> Path:
        return self.root / "out" / f"{MACHINE}-disk{number}.raw"

    def things(self) -> list[str]:
        return sorted(path.name for path in (self.root / "out").glob("*.raw"))

    def content(self, stage: Stage, number: int) -> bytes:
        return self._file(number).read_bytes()

    def scribble(self, stage: Stage, number: int) -> None:
        poke(self._file(number), 100, b"somebody was here")

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            kill_at(pytest.MonkeyPatch(), DANGER, nth)
            action()

        return in_child(doomed)
