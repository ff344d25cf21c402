"""What a hook sees of the running machine that it checks."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from manifests.machine import Machine
from pipeline.target import Abilities, Build, CommandResult, Endpoint, Importer, Network, Observation
from pipeline.verify.person import Question, Said

_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Subject(Protocol):
    """A machine that was booted. Hooks call it from several threads at once."""

    @property
    def machine(self) -> Machine:
        """The hardware it was built with; `name` is the machine's at the source."""

    @property
    def abilities(self) -> Abilities:
        """What its platform can do: a hook that needs more than that is not applicable."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its adapters."""

    @property
    def isolated(self) -> bool:
        """None of its adapters is on a network: nothing reaches it, unless the platform forwards ports."""

    @property
    def fresh(self) -> bool:
        """It was switched on just before the checks began: the first that is seen of it is its firmware. False: an
        earlier command had switched it on."""

    @property
    def artifacts(self) -> Path:
        """A folder for what checks keep; it exists. `save` writes there."""

    def seconds(self) -> float:
        """Since it was powered on. The clock of hooks that look at how things go on."""

    def observe(self) -> Observation:
        """What can be seen now. Raises TargetError."""

    def picture(self) -> bytes | None:
        """The console as PNG; None when there is none to be had now. Raises TargetError."""

    def reach(self, port: int) -> Endpoint | None:
        """Where TCP port `port` of the guest is reached; None when it cannot be. Raises TargetError."""

    def accepted(self, port: int) -> bool | None:
        """Of the connections now open to `port` through a relayed endpoint, has the guest accepted one? None: that
        cannot be told."""

    def command(self, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        """Run a program in the guest. Raises Unsupported when nothing there takes commands, TargetError when it does
        not answer in time."""

    def asked(self, question: Question) -> Said | None:
        """Put a question to whoever is asked elsewhere than at this command's terminal, and what was said to it so
        far. None: nothing, or nobody is."""

    def save(self, name: str, data: bytes) -> Path:
        """Keep a file, whole or not at all; one of that name is replaced."""


class BuildSubject:
    """The Subject of a build that an importer has booted.

    `booted` is when that was, on the clock `now` (seconds, monotonic). `fresh`: by this command, just now. `people`:
    who is asked elsewhere.
    """

    def __init__(
        self,
        importer: Importer,
        build: Build,
        machine: Machine,
        artifacts: Path,
        *,
        booted: float,
        fresh: bool = True,
        now: Callable[[], float] = time.monotonic,
        people: Callable[[Question], Said | None] = lambda _question: None,
    ) -> None:
        self.machine = machine
        self.artifacts = artifacts
        self.fresh = fresh
        self.abilities = importer.abilities
        self.networks = build.networks
        self.isolated = all(network.name is None for network in build.networks)
        self._importer = importer
        self._build = build
        self._booted = booted
        self._now = now
        self._people = people
        artifacts.mkdir(parents=True, exist_ok=True)

    def seconds(self) -> float:
        return self._now() - self._booted

    def observe(self) -> Observation:
        return self._importer.observe(self._build)

    def picture(self) -> bytes | None:
        return self._importer.picture(self._build)

    def reach(self, port: int) -> Endpoint | None:
        return self._importer.reach(self._build, port)

    def accepted(self, port: int) -> bool | None:
        return self._importer.accepted(self._build, port)

    def command(self, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        return self._importer.command(self._build, arguments, stdin=stdin, seconds=seconds)

    def asked(self, question: Question) -> Said | None:
        return self._people(question)

    def save(self, name: str, data: bytes) -> Path:
        return keep_file(self.artifacts, name, data)


def keep_file(folder: Path, name: str, data: bytes) -> Path:
    """Write `data` below `folder`, whole or not at all, under a name made safe for every file system."""
    path = folder / safe_name(name)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    part.write_bytes(data)
    part.replace(path)
    return path


def safe_name(name: str) -> str:
    """`name` with nothing in it that a file name must not have."""
    return _NAME.sub("-", name).strip("-.")[:120] or "unnamed"
