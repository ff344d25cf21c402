"""The source of kind `command` under the contract: a process that programs start and stop."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transfer.killing import in_child, kill_at

from pipeline.source import Source, SourceContext
from pipeline.sources import command
from pipeline.sources.command import CommandSource
from pipeline.sources.fence import Fence
from sources.contract.harness import Harness
from sources.toy_machine import SIZE, STEP

DANGER = [(command, "call"), (command, "note"), (Fence, "_keep")]
_SECONDS = 10.0
_SCRIPT = Path(__file__).parents[1] / "toy.sh"
_PYTHON = str(Path(sys.executable).resolve())


class CommandHarness(Harness):
    def __init__(self, root: Path, **different: Any) -> None:
        super().__init__(root)
        self.folder = root / "toy"
        self._different = different
        self._cut = False
        self.folder.mkdir(parents=True)
        (self.folder / "disk").write_bytes(bytes(SIZE))
        (self.folder / "acknowledged").write_text("0")
        self.run("start")

    def run(self, verb: str) -> None:
        subprocess.run(self.command(verb), check=True)

    def command(self, verb: str) -> list[str]:
        return [str(_SCRIPT), verb, str(self.folder), _PYTHON]

    def close(self) -> None:
        self.run("stop")

    def make(self, context: SourceContext) -> Source:
        return CommandSource(context)

    def settings(self) -> dict[str, Any]:
        verbs = (
            "observe",
            "before_read",
            "after_read",
            "quiesce",
            "unquiesce",
            "stop",
            "prove_stopped",
            "start",
            "lock",
            "unlock",
        )
        settings = {
            "hardware": {"memory": "64M", "cpus": 1},
            **{verb: self.command(verb) for verb in verbs},
            **self._different,
        }
        if self._cut:
            settings["observe"] = settings["prove_stopped"] = ["sh", "-c", "echo no route; exit 75"]
        return {name: value for name, value in settings.items() if value is not None}

    def acknowledged(self) -> int:
        return int((self.folder / "acknowledged").read_text())

    def works(self) -> bool:
        before, end = self.acknowledged(), time.monotonic() + _SECONDS
        while time.monotonic() < end:
            if self.acknowledged() > before:
                return True
            time.sleep(STEP)
        return False

    def silent(self) -> bool:
        before = self.acknowledged()
        for _ in range(100):
            time.sleep(STEP)
            if self.acknowledged() > before:
                return False
        return True

    def things(self) -> list[str]:
        names = ("locked", "quiet", "starts")
        found = [f"{name} {(self.folder / name).read_text()}" for name in names if (self.folder / name).exists()]
        power = subprocess.run(self.command("observe"), check=True, capture_output=True, text=True).stdout.split()[0]
        return sorted([*found, power])

    def pull(self) -> None:
        self.run("stop")

    def cut(self) -> None:
        self._cut = True

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            kill_at(pytest.MonkeyPatch(), DANGER, nth)
            action()

        return in_child(doomed)
