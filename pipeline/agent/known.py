"""What a controller keeps of its agents. Losing it means pairing them anew: no order can be given without its keys.

<state>/agents/<repository>/<agent>/
    pairing.json         keys of both sides, mode 0600
    lock                 held while a number is given out
    use                  held, shared, by commands that need the agent
    orders/<order>       the newest attempt of each order: its number and the document as it was stored
<state>/agents/<repository>/<host>.turn
                         held while a command pairs an agent's host anew, or changes what is plugged into it
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from manifests.mail import Channel, Pair, Public, is_agent
from pipeline.errors import AgentError


@dataclass(frozen=True, slots=True)
class Pairing:
    """One agent, or one that is expected: `theirs` is None until it has answered its code."""

    agent: str
    repository: str
    pair: Pair
    secret: bytes
    created: str
    expires: str
    theirs: Public | None = None
    host: str = ""

    @property
    def channel(self) -> Channel:
        return Channel(self.repository, self.agent, self.secret, self.pair, self.theirs)


@dataclass(frozen=True, slots=True)
class Sent:
    """The newest attempt of an order. `wanted`: what was ordered, to notice when something else is under its id."""

    order: str
    number: int
    attempt: int
    run: str
    wanted: str
    document: str
    ended: bool = False
    """It failed, was cancelled or refused, and whoever ordered it has heard so."""


class Known:
    """All agents of one repository that this host controls."""

    def __init__(self, state: Path, repository: str) -> None:
        self._folder = state / "agents" / repository

    def agents(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if is_agent(path.name))

    def pairing(self, agent: str) -> Pairing:
        """Raises AgentError for one that this host does not control."""
        try:
            found = json.loads((self._folder / agent / "pairing.json").read_bytes())
        except FileNotFoundError:
            raise AgentError(
                f"{agent} is no agent of this host",
                remedy="`failback agent list` shows them; an agent obeys the host alone that made its pairing code",
            ) from None
        theirs = found["theirs"]
        return Pairing(
            agent=found["agent"],
            repository=found["repository"],
            pair=Pair(bytes.fromhex(found["sign"]), bytes.fromhex(found["box"])),
            secret=bytes.fromhex(found["secret"]),
            created=found["created"],
            expires=found["expires"],
            theirs=Public(bytes.fromhex(theirs["sign"]), bytes.fromhex(theirs["box"])) if theirs else None,
            host=found["host"],
        )

    def keep(self, pairing: Pairing) -> None:
        theirs = pairing.theirs
        document = {
            "agent": pairing.agent,
            "repository": pairing.repository,
            "sign": pairing.pair.sign.hex(),
            "box": pairing.pair.box.hex(),
            "secret": pairing.secret.hex(),
            "created": pairing.created,
            "expires": pairing.expires,
            "theirs": {"sign": theirs.sign.hex(), "box": theirs.box.hex()} if theirs else None,
            "host": pairing.host,
        }
        write_durably(self._folder / pairing.agent / "pairing.json", json.dumps(document).encode())

    def forget(self, agent: str) -> None:
        shutil.rmtree(self._folder / agent, ignore_errors=True)

    @contextmanager
    def locked(self, agent: str) -> Iterator[None]:
        """One process at a time gives out numbers."""
        fd = os.open(self._folder / agent / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def turn(self, host: str, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Commands of this computer take turns with the host of an agent. `waiting` is called when it is another's."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._folder / f"{host}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def lock_of_use(self, agent: str) -> Path:
        return self._folder / agent / "use"

    def sent(self, agent: str, order: str) -> Sent | None:
        try:
            return Sent(**json.loads((self._orders(agent) / order).read_bytes()))
        except FileNotFoundError:
            return None

    def keep_sent(self, agent: str, sent: Sent) -> None:
        document = {name: getattr(sent, name) for name in Sent.__slots__}
        write_durably(self._orders(agent) / sent.order, json.dumps(document).encode())

    def highest(self, agent: str) -> int:
        """The highest number that this host has given out; 0 for none."""
        try:
            return int((self._folder / agent / "number").read_text())
        except FileNotFoundError:
            return 0

    def keep_highest(self, agent: str, number: int) -> None:
        write_durably(self._folder / agent / "number", f"{number}\n".encode())

    def _orders(self, agent: str) -> Path:
        return self._folder / agent / "orders"


def write_durably(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by its owner alone, and on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
