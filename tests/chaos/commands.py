"""`failback` as a process of some host, and what happens to it: killed, put to sleep, ended, or left alone."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from servers import die_with_parent

from chaos.ledger import Fault, Ledger
from pipeline.cli import exitcodes

COMMAND = (sys.executable, "-c", "from pipeline.cli.main import run; run()")
SOURCES = Path(__file__).parents[2]
HANGS_SECONDS = 240.0
"""No command may take longer, whatever the weather: each operation gives up after its deadline."""
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NEW_HOST_NAME = 0x04000000
_OBJECT = re.compile(
    r"\b\w+@\d+|\b(packs|pages|manifests|sessions|tombstones|gc|holds|keys|verified|scrub|leases|relocations)/"
    r"|repository\.json|s3://|https?://|\.img\b|/\w+/|\b(web|db|mail)\b"
)

Kind = Literal["left alone", "killed", "stopped", "stopped while time passed", "ended"]


@dataclass(frozen=True, slots=True)
class Fate:
    """`after` seconds something happens, and a process that was stopped goes on `length` seconds later."""

    kind: Kind = "left alone"
    after: float = 0.0
    length: float = 0.0

    @classmethod
    def draw(cls, chance: random.Random) -> Fate:
        kinds: tuple[Kind, ...] = ("left alone", "killed", "stopped", "stopped while time passed", "ended")
        kind = chance.choices(kinds, (50, 20, 10, 12, 8))[0]
        return cls(kind, chance.uniform(0.3, 4.0), chance.uniform(0.2, 6.0))


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended. `code` is negative when a signal killed it."""

    command: str
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        for line in reversed(self.out.splitlines()):
            document: dict[str, Any] = json.loads(line)
            if document["type"] == "result":
                return document
        raise Fault(f"{self.command} ended with {self.code} and told no result:\n{self.out[-2000:]}")

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def ended(self) -> bool:
        return self.code in (exitcodes.SIGNALLED + number for number in ENDINGS)

    def check(self, *allowed: int) -> None:
        """Raises Fault when it ended otherwise than with one of these codes, or does not say what, and what to do."""
        told = f"{self.command} ended with {self.code}:\n{self.err[-3000:]}"
        if self.code in (-number for number in ENDINGS):
            return  # the signal came while Python was still starting, which ends with a traceback of its own
        if "Traceback" in self.err:
            raise Fault(f"a traceback: {told}")
        if self.killed or self.code == exitcodes.OK:
            return
        *_, what, remedy = ["", "", *self.err.splitlines()]
        if not what.startswith("failback: ") or not remedy.startswith("  "):
            raise Fault(f"no error with a remedy: {told}")
        if self.ended:
            return
        if self.code not in allowed:
            raise Fault(f"it must not end so: {told}")
        if not _OBJECT.search(what):
            raise Fault(f"the error names no object: {told}")


class Host:
    """A host with its own name and state folder. Without root all have the same name."""

    def __init__(self, name: str, root: Path, environ: Mapping[str, str], ledger: Ledger, sources: Path = SOURCES):
        self.name, self.folder, self.ledger = name, root / f"host-{name}", ledger
        self.folder.mkdir(exist_ok=True)
        self._environ = {
            **environ,
            "HOME": str(self.folder),
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(sources),
            "COLUMNS": "200",
            "FAILBACK_STATE_DIR": str(self.folder / "state"),
            "FAILBACK_PARALLEL": "4",
            "FAILBACK_MEMORY_MIB": "64",
        }

    def start(self, *arguments: object, settings: Mapping[str, str] | None = None) -> Running:
        return Running(self, [str(a) for a in arguments], {**self._environ, **(settings or {})})

    def run(
        self,
        *arguments: object,
        fate: Fate | None = None,
        settings: Mapping[str, str] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> Done:
        """Run a command to its end. `sleep` waits so many seconds, or until time has passed at the store."""
        running = self.start(*arguments, settings=settings)
        try:
            running.meet(fate or Fate(), sleep)
            return running.end()
        finally:
            running.process.kill()
            running.process.wait()

    def become(self) -> None:
        """In the child, before exec."""
        die_with_parent()
        if os.geteuid() == 0 and ctypes.CDLL(None).unshare(_NEW_HOST_NAME) == 0:
            socket.sethostname(self.name)


class Running:
    """A process. Its output goes to files: nobody reads along while it sleeps."""

    def __init__(self, host: Host, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.ledger = host.ledger
        self.command = f"{host.name}: failback {' '.join(arguments)}"
        # They end with the last user of the file.
        self._out, self._err = (tempfile.TemporaryFile("w+b") for _ in range(2))  # noqa: SIM115
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=host.folder,  # not the checkout: `-c` would find its modules first
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            preexec_fn=host.become,
        )
        self.ledger.count(f"commands: {arguments[0]}")

    def meet(self, fate: Fate, sleep: Callable[[float], object]) -> None:
        if fate.kind == "left alone" or self._ended_within(fate.after):
            return
        self.ledger.count(f"processes {fate.kind}")
        if fate.kind == "killed":
            self.process.kill()
        elif fate.kind == "ended":
            self.process.send_signal(ENDINGS[int(fate.length * 1000) % len(ENDINGS)])
        else:
            self.process.send_signal(signal.SIGSTOP)
            (sleep if fate.kind == "stopped while time passed" else time.sleep)(fate.length)
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> Done:
        """Raises Fault when it does not end."""
        try:
            code = self.process.wait(HANGS_SECONDS)
        except subprocess.TimeoutExpired:
            raise Fault(f"{self.command} hangs:\n{self._text(self._err)[-3000:]}") from None
        done = Done(self.command, code, self._text(self._out), self._text(self._err))
        self._out.close()
        self._err.close()
        return done

    def said(self) -> list[dict[str, Any]]:
        """The JSON lines that it has printed so far."""
        lines = self._text(self._out).split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def _ended_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _text(self, file: Any) -> str:
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode(errors="replace")
