"""Stream: a disk sent as a VMDK over TLS, beside a plain restore of the same point, and over a slow link."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from scripts.bench import corpus, facts
from scripts.bench.apart import apart
from scripts.bench.files import settle
from scripts.bench.ground import Ground
from scripts.bench.image import make_image
from scripts.bench.measure import Figures, run
from scripts.bench.peers.failback import Failback
from scripts.bench.server import Minio
from scripts.bench.sink import Received, Sink
from scripts.bench.step import FULL, Taker
from scripts.bench.table import aligned, show
from scripts.bench.touch import touch_free_memory
from scripts.bench.verdict import Bound

MIB = 1 << 20
LINK = 50_000_000
"""Bytes a second of the slow link."""
LEAST_SPEED, LEAST_LINK, MOST_MEMORY = 0.6, 0.9, 256


@dataclass(frozen=True)
class Sent:
    """One upload: what it took at our side, and what the sink saw."""

    figures: Figures
    received: Received


@dataclass
class Streams:
    """What was measured. `size`: bytes of the disk, holes included; `restores`: seconds."""

    size: int
    restores: list[float] = field(default_factory=list)
    stored: list[Sent] = field(default_factory=list)
    """At level 0, as fast as it goes."""
    compressed: list[Sent] = field(default_factory=list)
    """At level 1, as fast as it goes."""
    slow: list[Sent] = field(default_factory=list)
    """At level 1 over the slow link."""
    machine: dict[str, object] = field(default_factory=facts.machine)

    def table(self) -> str:
        """A line for each: medians."""
        rows = [("what", "", "wall s", "MB/s", "sent MB", "at the link MB/s", "CPU s", "peak MiB")]
        wall = median(self.restores)
        rows.append(("plain restore", "", f"{wall:.2f}", f"{self.size / wall / 1e6:,.0f}", "", "", "", ""))
        for name, all_sent in (("level 0", self.stored), ("level 1", self.compressed), ("level 1, slow", self.slow)):
            if not all_sent:
                continue
            wall = median(s.figures.wall for s in all_sent)
            rows.append(
                (
                    name,
                    f"{len(all_sent)} times",
                    f"{wall:.2f}",
                    f"{self.size / wall / 1e6:,.0f}",
                    f"{all_sent[0].received.length / 1e6:,.0f}",
                    f"{median(s.received.rate for s in all_sent) / 1e6:,.1f}",
                    f"{median(s.figures.user + s.figures.system for s in all_sent):.2f}",
                    f"{max(_peak(s) for s in all_sent) / MIB:,.0f}",
                )
            )
        return aligned(rows)

    def bounds(self) -> list[Bound]:
        """The promises."""
        ratio = median(r / s.figures.wall for r, s in zip(self.restores, self.stored, strict=True))
        link = median(s.received.rate for s in self.slow) / LINK
        peak = max(_peak(s) for s in [*self.stored, *self.compressed, *self.slow]) / MIB
        return [
            Bound("speed of a stored stream by a plain restore,", ratio, LEAST_SPEED, at_least=True),
            Bound(f"share of a link of {LINK // 1_000_000} MB/s at level 1,", link, LEAST_LINK, at_least=True),
            Bound("memory", peak, MOST_MEMORY, " MiB"),
        ]

    def write(self, path: Path) -> None:
        """All figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))


def stream(ground: Ground, *, size: int, repeats: int, seed: int) -> Streams:
    """Export a disk; restore it and send it in turn, so many times; send it once over the slow link."""
    apart(make_image, ground.image, size, roots=corpus.default_roots(), seed=seed)
    streams = Streams(size)
    with Minio(ground.store / "minio") as server:
        taker = Taker(Failback, ground, server)
        show(taker.take(FULL, taker.peer.full()))
        with Sink(ground.scratch) as fast:
            for number in range(1, repeats + 1):
                restored = taker.restore(number=number)
                show(restored)
                streams.restores.append(restored.wall)
                streams.stored.append(_send(ground, taker.peer, fast, level=0))
                streams.compressed.append(_send(ground, taker.peer, fast, level=1))
        with Sink(ground.scratch, limit=LINK) as slow:
            streams.slow.append(_send(ground, taker.peer, slow, level=1))
    return streams


def _send(ground: Ground, peer: Failback, sink: Sink, *, level: int) -> Sent:
    settle(ground.store, ground.restores)
    touch_free_memory(ground.image.stat().st_size)
    figures = run(peer.upload(sink.port, sink.certificate, level=level), ground.log)
    return Sent(figures, sink.received())


def _peak(sent: Sent) -> int:
    return max(sent.figures.peak_largest, sent.figures.peak_sum)
