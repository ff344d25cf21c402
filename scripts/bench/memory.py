"""Memory: whether our peak stays the same whatever the size of the disk and of its index."""

from collections.abc import Callable
from pathlib import Path

from scripts.bench import corpus
from scripts.bench.apart import apart
from scripts.bench.extents import write_extents
from scripts.bench.ground import Ground
from scripts.bench.image import GIB, make_image
from scripts.bench.measure import own_peak
from scripts.bench.peers.failback import Failback
from scripts.bench.server import Minio
from scripts.bench.sparse import change_chunks, make_dotted, make_sparse
from scripts.bench.step import FULL, INCREMENTAL, Taker
from scripts.bench.table import show
from scripts.bench.verdict import Bound, judge

MIB = 1 << 20
LIMIT = 256
"""MiB."""


def memory(ground: Ground, *, entries: int, chunks: int, seed: int) -> int:
    """Peaks of full exports of three disks and of an incremental on the one with most entries; returns an exit code."""
    roots = corpus.default_roots()
    disks: dict[str, Callable[[Path], object]] = {
        "full, 4 GiB half full": lambda path: apart(make_image, path, 4 * GIB, roots=roots, seed=seed),
        "full, 1 TiB with 2 GiB": lambda path: apart(make_sparse, path, 1024 * GIB, 2 * GIB, roots=roots, seed=seed),
        f"full, {entries:,} entries": lambda path: make_dotted(path, entries),
    }
    bounds = []
    for name, make in disks.items():
        make(ground.image)
        with Minio(ground.store / "minio") as server:
            taker = Taker(Failback, ground, server)
            full = taker.take(FULL, taker.peer.full())
            show(full, name)
            bounds.append(Bound(name, full.peak / MIB, LIMIT, " MiB"))
            if name == list(disks)[-1]:
                listed = ground.scratch / "changes.json"
                write_extents(listed, change_chunks(ground.image, chunks, seed=seed))
                incremental = taker.take(INCREMENTAL, taker.peer.incremental(listed))
                show(incremental, f"on a parent of {entries:,} entries")
                bounds.append(Bound(f"incremental, {entries:,} entries", incremental.peak / MIB, LIMIT, " MiB"))
        ground.image.unlink()
    # The kernel counts a child's peak from that of its parent on: figures near this floor say nothing.
    print(f"the benchmark itself: {own_peak() / MIB:.0f} MiB")
    return judge(bounds)
