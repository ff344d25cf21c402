"""Step: one timed thing one tool does, and what it took."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.bench.files import empty, same, settle, warm
from scripts.bench.ground import Ground
from scripts.bench.measure import Command, run
from scripts.bench.peers import Peer, Site
from scripts.bench.server import BUCKET, Minio, Reading
from scripts.bench.touch import touch_free_memory

FULL, INCREMENTAL, RESTORE = STEPS = ("full", "incremental", "restore")


@dataclass(frozen=True)
class Step:
    """Figures of one step of one tool in one round. Seconds and bytes.

    `sync` is how long the file systems took afterwards to write what was left dirty: a restored disk is safe only
    after `wall` + `sync`, whoever calls fsync.
    """

    round: int
    tool: str
    step: str
    wall: float
    user: float
    system: float
    peak_largest: int
    peak_sum: int
    sync: float
    server_cpu: float = 0.0
    stored: int = 0
    objects: int = 0
    requests: dict[str, int] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        """Seconds of the tool, the server left out."""
        return self.user + self.system

    @property
    def peak(self) -> int:
        """Bytes of memory of the tool with its descendants, the larger of the two ways to count."""
        return max(self.peak_largest, self.peak_sum)

    @property
    def asked(self) -> int:
        """Requests of all methods."""
        return sum(self.requests.values())


class Mismatch(Exception):
    """A restored image differs from its source."""


class Taker:
    """One tool on one image with one server: takes steps under equal conditions."""

    def __init__(self, peer: type[Peer], ground: Ground, server: Minio, *, image: Path | None = None) -> None:
        self._ground, self._server = ground, server
        self._own = empty(ground.scratch / f"{peer.name}-{server.port}")
        self.peer = peer(Site(image or ground.image, self._own, server.endpoint, BUCKET))
        self._quietly(self.peer.prepare())

    def take(self, step: str, command: Command, *, number: int = 1, target: Path | None = None) -> Step:
        """Run a command with the image in the page cache, nothing dirty, and free memory touched. Raises
        CommandFailed."""
        ground = self._ground
        warm(self.peer.site.image)
        places = [self.peer.site.image.parent, self._own, ground.store, target or ground.restores]
        settle(*places)
        touch_free_memory(2 * self.peer.site.image.stat().st_size)
        before, kept = self._server.reading(), self.peer.stored()
        figures = run(command, ground.log)
        done = self._server.reading() - before
        sync = settle(*places)
        if not self.peer.over_s3:
            done = Reading(stored=self.peer.stored() - kept)
        return Step(
            round=number,
            tool=self.peer.name,
            step=step,
            **asdict(figures),
            sync=sync,
            server_cpu=done.cpu,
            stored=done.stored,
            objects=done.objects,
            requests=dict(done.requests),
        )

    def restore(self, *, number: int = 1) -> Step:
        """Restore as another machine would, and compare with the image. Raises Mismatch."""
        self._quietly(self.peer.move())
        target = empty(self._ground.restores / "restored")
        step = self.take(RESTORE, self.peer.restore(target), number=number, target=target)
        if not same(self.peer.restored(target), self.peer.site.image):
            raise Mismatch(f"{self.peer.name} restored other bytes than it had stored, round {number}")
        empty(target)
        return step

    def _quietly(self, commands: Sequence[Command]) -> None:
        for command in commands:
            run(command, self._ground.log)
