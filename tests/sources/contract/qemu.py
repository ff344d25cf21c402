"""QEMU under the contract, with a real QEMU and a guest of one boot sector that counts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from simulators.guests import READY, WRITTEN, make_guest
from transfer.killing import in_child, kill_at

from importers.qemu import moment, source
from importers.qemu.qmp import Qmp, QmpGone
from importers.qemu.source import QemuSource
from importers.qemu.takeover import Takeover
from pipeline.source import Source, SourceContext
from pipeline.sources.fence import Fence
from sources.contract.harness import Harness

_QUESTIONS = ("query-", "qmp_", "qom-get", "human-")


class _Order:
    """What changes something in QEMU; questions are left out, to die at one is to die before the next order."""

    given = staticmethod(Qmp.execute)


def _execute(qmp: Qmp, command: str, **arguments: Any) -> Any:
    if command.startswith(_QUESTIONS):
        return _plain(qmp, command, **arguments)
    return _Order.given(qmp, command, **arguments)


_plain = Qmp.execute
DANGER = [
    (_Order, "given"),
    (Takeover, "note"),
    (Fence, "_keep"),
    (source, "call"),
    (source.subprocess, "run"),
    (moment, "qemu_img"),
]
_SECONDS = 30.0
_TICK = 0.055
"""Between two numbers of the guest."""


class QemuHarness(Harness):
    def __init__(self, root: Path, image_format: str = "raw") -> None:
        super().__init__(root)
        self.folder = root / "machine"
        self.folder.mkdir(parents=True)
        self.disk = self.folder / f"disk.{image_format}"
        make_guest(self.folder / "made", "counts")
        command = ["qemu-img", "convert", "-f", "raw", "-O", image_format, "made", self.disk.name]
        subprocess.run(command, cwd=self.folder, check=True)
        self.start(image_format)

    def start(self, image_format: str) -> None:
        command = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-m", "32", "-display", "none"]
        command += ["-nodefaults", "-no-user-config", "-vga", "none"]
        command += ["-chardev", "file,id=log,path=console.log,append=on", "-serial", "chardev:log"]
        command += ["-qmp", "unix:qmp.sock,server=on,wait=off"]
        command += ["-drive", f"if=none,id=disk0,format={image_format},file={self.disk.name}"]
        command += ["-device", "ide-hd,drive=disk0,bootindex=0"]
        command += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
        subprocess.run(["setsid", "--fork", *command], cwd=self.folder, check=True, stdin=subprocess.DEVNULL)
        assert self.works(), (self.folder / "console.log").read_text()

    def close(self) -> None:
        for process in self._processes():
            os.kill(process, signal.SIGCONT)
        with suppress(QmpGone), Qmp(self.folder) as qmp:
            qmp.execute("quit")
        self._until_gone()
        shutil.rmtree(self.folder)

    def _until_gone(self) -> None:
        end = time.monotonic() + _SECONDS
        while self._processes():
            assert time.monotonic() < end, "QEMU does not end"
            time.sleep(0.02)

    def _processes(self) -> list[int]:
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                words = (link.parent / "cmdline").read_bytes()
                if link.resolve(strict=True) == self.folder.resolve() and words.startswith(b"qemu-system"):
                    found.append(int(link.parent.name))
        return found

    def make(self, context: SourceContext) -> Source:
        return QemuSource(context)

    def settings(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}

    def written(self, disk: bytes) -> int:
        return int.from_bytes(disk[WRITTEN : WRITTEN + 4], "little")

    def acknowledged(self) -> int:
        try:
            return (self.folder / "console.log").read_text(errors="replace").count(".")
        except FileNotFoundError:
            return 0

    def works(self) -> bool:
        before, end = self.acknowledged(), time.monotonic() + _SECONDS
        while self.acknowledged() <= before:
            if time.monotonic() > end:
                return False
            time.sleep(_TICK)
        return True

    def silent(self) -> bool:
        before = self.acknowledged()
        time.sleep(10 * _TICK)
        return self.acknowledged() == before

    def things(self) -> list[str]:
        try:
            with Qmp(self.folder) as qmp:
                status = str(qmp.execute("query-status")["status"])
        except QmpGone:
            status = "no QEMU"
        starts = (self.folder / "console.log").read_text(errors="replace").count(READY)
        files = sorted(path.name for path in self.folder.glob("failback-moment*"))
        return [status, f"{len(self._processes())} processes", f"{starts} starts", *files]

    def pull(self) -> None:
        self.read()  # one that nobody ever saw running is not known to be off
        with Qmp(self.folder) as qmp:
            qmp.execute("quit")
        self._until_gone()

    def cut(self) -> None:
        """Its main loop hangs, as with storage that does."""
        [process] = self._processes()
        os.kill(process, signal.SIGSTOP)

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            patch = pytest.MonkeyPatch()
            kill_at(patch, DANGER, nth)
            patch.setattr(Qmp, "execute", _execute)
            action()

        return in_child(doomed)
