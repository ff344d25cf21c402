"""QEMU under the contract, with a real QEMU."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import make_disk, noise, poke

from contract.harness import Harness
from importers.qemu import adopt, folder, machine, power, target
from importers.qemu.definition import Node, load
from importers.qemu.folder import Folder
from importers.qemu.process import Process
from importers.qemu.target import QemuImporter
from pipeline.target import Context, Importer, Place, Stage
from pipeline.transfer import local
from pipeline.transfer.stage import Stage as Known
from pipeline.writers.raw import RawWriter

DANGER = [
    (local, "open_writer"),
    (local, "put_mark"),
    (Known, "save"),
    (RawWriter, "write"),
    (RawWriter, "flush"),
    (Folder, "write"),
    (Folder, "create"),
    (folder, "delete"),
    (folder, "sync_folder"),
    (machine, "qemu_img"),
    (machine, "describe"),
    (machine, "write_whole"),
    (machine, "sync_folder"),
    (machine, "delete"),
    (target, "describe"),
    (target, "drop_overlays"),
    (power, "_spawn"),
    (power, "sync_folder"),
    (Process, "kill"),
    (adopt, "put_mark"),
]
_QUIET = ("lock", "running", "pid", "qemu.log", "events.log", "serial.log", "serial.log.1")
"""What comes and goes with a process, or stays empty after it."""


class QemuHarness(Harness):
    target = "qemu"
    network = "user"

    def make(self, context: Context) -> Importer:
        return QemuImporter(context)

    def mapping(self) -> dict[str, object]:
        # To try KVM out takes time, and what came of it is no business of these tests.
        return {"memory": "64MiB", "options": {"qemu": {"accelerator": "tcg"}}}

    def things(self) -> list[str]:
        out = self.root / "out"
        files = [
            str(path.relative_to(out))
            for path in out.rglob("*")
            if path.name not in _QUIET and path.suffix != ".sock" and "known" not in path.parts
        ]
        return sorted([*files, *(f"process {name}" for name in self._processes())])

    def _processes(self) -> list[str]:
        """Folders that a QEMU works in, of those below ours."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                folder, words = link.resolve(strict=True), (link.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if folder.is_relative_to(self.root) and b"qemu-system" in words:
                found.append(folder.name)
        return found

    def _place(self) -> Path:
        [found] = (self.root / "out").glob(f"*-{self.marker}")
        return found

    def content(self, stage: Stage, number: int) -> bytes:
        return (self._place() / "stage" / f"disk{number}.raw").read_bytes()

    def scribble(self, stage: Stage, number: int) -> None:
        poke(self._place() / "stage" / f"disk{number}.raw", 100, b"somebody was here")

    def ran(self, importer: Importer, place: Place) -> None:
        """What a guest writes goes where the definition says."""
        disk = self._disk(place, 0)
        command = ["qemu-io", "-f", disk.format, "-c", "write -P 0x5a 4k 64k", disk.file]
        subprocess.run(command, cwd=self._folder(place), check=True, capture_output=True)

    def machine_content(self, place: Place, number: int) -> bytes:
        disk, copy = self._disk(place, number), self.root / "copy"
        command = ["qemu-img", "convert", "-f", disk.format, "-O", "raw", disk.file, str(copy)]
        subprocess.run(command, cwd=self._folder(place), check=True)
        return copy.read_bytes()

    def _folder(self, place: Place) -> Path:
        assert place.build is not None
        return self._place() / f"build-{place.build.purpose}"

    def _disk(self, place: Place, number: int) -> Node:
        definition = load(self._folder(place))
        assert definition is not None
        return definition.disks[number].node

    def existing(self) -> str:
        (self.root / "out").mkdir(exist_ok=True)
        return str(make_disk(self.root / "out" / "survivor.raw", 1 << 20, {0: noise(4096, "survivor")}))

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            kill_at(pytest.MonkeyPatch(), DANGER, nth)
            action()

        return in_child(doomed)
