"""Floor: the CPU seconds that no restore of a disk from this server can do without, beside restic's whole restore."""

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from scripts.bench import corpus, facts
from scripts.bench.apart import apart
from scripts.bench.ground import Ground
from scripts.bench.image import make_image
from scripts.bench.least import Parts
from scripts.bench.peers.failback import Failback
from scripts.bench.peers.restic import Restic
from scripts.bench.server import Minio
from scripts.bench.step import FULL, Taker
from scripts.bench.table import aligned, show

TIMES = 3.5
"""The promise: a restore so many times as fast as restic's."""


@dataclass
class Floor:
    """What was measured. `size`: bytes of the disk, holes included; `restic` and `failback`: seconds of restores."""

    size: int
    restic: list[float] = field(default_factory=list)
    failback: list[float] = field(default_factory=list)
    parts: list[Parts] = field(default_factory=list)
    """The exported disk first, then the same chunks compressed in other ways."""
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    machine: dict[str, object] = field(default_factory=facts.machine)

    def allowed(self) -> float:
        """CPU seconds on all cores together in a restore TIMES as fast as restic's."""
        return median(self.restic) / TIMES * self.cores

    def reached(self, seconds: float) -> float:
        """How many times as fast as restic's a restore is that spends these CPU seconds on all cores side by side."""
        return median(self.restic) * self.cores / seconds

    def table(self) -> str:
        """A column for each way."""
        lines = (
            ("stored MB", lambda parts: f"{parts.stored / 1e6:,.0f}"),
            ("written MB", lambda parts: f"{parts.written / 1e6:,.0f}"),
            ("server sends", lambda parts: f"{parts.serve:.2f}"),
            ("client receives", lambda parts: f"{parts.receive:.2f}"),
            ("open (AES-256-GCM)", lambda parts: f"{parts.open:.2f}"),
            ("decompress", lambda parts: f"{parts.decode:.2f}"),
            ("hash once (BLAKE3)", lambda parts: f"{parts.hash:.2f}"),
            ("write new pages", lambda parts: f"{parts.write:.2f}"),
            ("sum", lambda parts: f"{parts.whole:.2f}"),
            (f"allowed: {TIMES:g} times restic", lambda parts: f"{self.allowed():.2f}"),
            ("most times restic", lambda parts: f"{self.reached(parts.whole):.2f}"),
            ("  without the hash", lambda parts: f"{self.reached(parts.trusting):.2f}"),
            ("  nor encryption", lambda parts: f"{self.reached(parts.bare):.2f}"),
        )
        rows = [["CPU seconds", "", *(parts.way for parts in self.parts)]]
        rows += [[name, "", *map(show_line, self.parts)] for name, show_line in lines]
        ratio = median(theirs / ours for theirs, ours in zip(self.restic, self.failback, strict=True))
        walls = f"restic restores in {_spread(self.restic)}, failback in {_spread(self.failback)}: {ratio:.2f} times"
        return f"{walls}; {self.cores} cores\n{aligned(rows)}"

    def write(self, path: Path) -> None:
        """All figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))


def floor(ground: Ground, *, size: int, repeats: int, seed: int) -> Floor:
    """Store a disk with restic and with failback and restore it in turn, so many times; then measure the parts."""
    apart(make_image, ground.image, size, roots=corpus.default_roots(), seed=seed)
    found = Floor(size)
    with ExitStack() as stack:
        takers = []
        for peer in (Restic, Failback):
            server = stack.enter_context(Minio(ground.store / peer.name))
            takers.append(taker := Taker(peer, ground, server))
            show(taker.take(FULL, taker.peer.full()))
        for number in range(1, repeats + 1):
            for taker, walls in zip(takers, (found.restic, found.failback), strict=True):
                show(restored := taker.restore(number=number))
                walls.append(restored.wall)
        environment = takers[-1].peer.environment
        found.parts = apart(_parts, server.port, server.process, environment, ground.restores, repeats)
    return found


def _parts(port: int, process: int, environment: dict[str, str], place: Path, repeats: int) -> list[Parts]:
    os.environ.update(environment)
    from scripts.bench.parts import Server, measure  # late: see the package's docstring

    return measure(Server(port, process), place, repeats=repeats)


def _spread(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
