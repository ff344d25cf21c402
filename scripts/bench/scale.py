"""Scale: what an incremental with a change list costs on a small disk and on one a hundred times as large."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median

from scripts.bench import corpus
from scripts.bench.apart import apart
from scripts.bench.difference import CHUNK
from scripts.bench.extents import write_extents
from scripts.bench.ground import Ground
from scripts.bench.image import GIB
from scripts.bench.peers.failback import Failback
from scripts.bench.server import Minio
from scripts.bench.sparse import change_chunks, make_sparse
from scripts.bench.step import FULL, INCREMENTAL, Step, Taker
from scripts.bench.table import show
from scripts.bench.verdict import Bound, judge

SMALL, LARGE = 10 * GIB, 1024 * GIB
WITHIN = 1.2
"""Times the small disk's figure that the large one's may be."""


def scale(ground: Ground, *, data: int, chunks: int, repeats: int, seed: int) -> int:
    """Change so many scattered chunks on both disks in turn and export them; prints a verdict, returns an exit code.

    The changed chunks cannot be compressed, so metadata is all an incremental stored beyond their plain length.
    """
    pairs = []
    with ExitStack() as stack:
        takers = [_start(stack, ground, size, data, seed) for size in (SMALL, LARGE)]
        for number in range(1, repeats + 1):
            small, large = (_incremental(taker, ground, chunks, number, seed + number) for taker in takers)
            pairs.append((small, large))
    payload = chunks * CHUNK
    return judge(
        [
            Bound("time, large disk by small,", median(large.wall / small.wall for small, large in pairs), WITHIN),
            Bound(
                "requests, large disk by small,", median(large.asked / small.asked for small, large in pairs), WITHIN
            ),
            Bound(
                "metadata, large disk by small,",
                median((large.stored - payload) / (small.stored - payload) for small, large in pairs),
                WITHIN,
            ),
            Bound(
                "metadata of an incremental",
                max(step.stored - payload for pair in pairs for step in pair) / 1024,
                (200 * chunks + (256 << 10)) / 1024,
                " KiB",
            ),
        ]
    )


def _start(stack: ExitStack, ground: Ground, size: int, data: int, seed: int) -> Taker:
    image = _place(ground, size)
    apart(make_sparse, image, size, data, roots=corpus.default_roots(), seed=seed)
    server = stack.enter_context(Minio(ground.store / f"minio-{size // GIB}"))
    taker = Taker(Failback, ground, server, image=image)
    show(taker.take(FULL, taker.peer.full()), f"{size // GIB} GiB disk")
    return taker


def _place(ground: Ground, size: int) -> Path:
    directory = ground.image.parent / str(size // GIB)
    directory.mkdir()
    return directory / "disk.raw"


def _incremental(taker: Taker, ground: Ground, chunks: int, number: int, seed: int) -> Step:
    image, listed = taker.peer.site.image, ground.scratch / "changes.json"
    write_extents(listed, change_chunks(image, chunks, seed=seed))
    step = taker.take(INCREMENTAL, taker.peer.incremental(listed), number=number)
    show(step, f"{image.stat().st_size // GIB} GiB disk, {(step.stored - chunks * CHUNK) / 1024:,.0f} KiB of metadata")
    return step
