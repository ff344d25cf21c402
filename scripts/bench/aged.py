"""Aged: what many incrementals do to a restore, beside a fresh repository with the same content."""

from collections import Counter
from contextlib import ExitStack
from statistics import median

from scripts.bench import corpus
from scripts.bench.apart import apart
from scripts.bench.audit import Audit
from scripts.bench.change import change
from scripts.bench.ground import Ground
from scripts.bench.image import make_image
from scripts.bench.peers.failback import Failback
from scripts.bench.server import Minio
from scripts.bench.step import FULL, INCREMENTAL, Taker
from scripts.bench.table import show
from scripts.bench.verdict import Bound, judge

MIB = 1 << 20
PACKS = "/packs/"


def aged(ground: Ground, *, size: int, generations: int, fraction: float, repeats: int, seed: int) -> int:
    """Export, change and export again so many times; restore that and a fresh repository in turn.

    Prints a line a generation and the verdict; returns an exit code.
    """
    apart(make_image, ground.image, size, roots=corpus.default_roots(), seed=seed)
    with ExitStack() as stack:
        audit = stack.enter_context(Audit())
        # Both servers report to the audit, so that what reporting costs is the same for both.
        old, fresh = (
            stack.enter_context(Minio(ground.store / name, environment=audit.environment)) for name in ("old", "fresh")
        )
        grown = Taker(Failback, ground, old)
        show(grown.take(FULL, grown.peer.full()))
        for number in range(1, generations + 1):
            undo = ground.scratch / "undo"
            change(ground.image, undo, fraction=fraction, seed=seed + number)
            undo.unlink()
            show(grown.take(INCREMENTAL, grown.peer.incremental(), number=number))
        new = Taker(Failback, ground, fresh)
        show(new.take(FULL, new.peer.full()))

        pairs, per_pack = [], []
        for number in range(1, repeats + 1):
            audit.clear()
            one = grown.restore(number=number)
            per_pack.append(_requests_per_pack(audit))
            pairs.append((one, new.restore(number=number)))
            for step in pairs[-1]:
                show(step)
    return judge(
        [
            Bound(
                "restore speed, old repository by fresh,", median(b.wall / a.wall for a, b in pairs), 0.7, at_least=True
            ),
            Bound("requests for a pack used", max(per_pack), 2.0),
            Bound(
                "memory, old repository by fresh,", max(a.peak for a, _ in pairs) / max(b.peak for _, b in pairs), 1.2
            ),
            Bound("memory", max(a.peak for a, _ in pairs) / MIB, 256, " MiB"),
        ]
    )


def _requests_per_pack(audit: Audit) -> float:
    packs: Counter[str] = Counter()
    for (_, key), count in audit.seen().items():
        if PACKS in key:
            packs[key] += count
    if not packs:
        raise RuntimeError("the server reported no request for a pack")
    return sum(packs.values()) / len(packs)
