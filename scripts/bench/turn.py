"""Turn: one tool takes its steps on one image with an empty server of its own."""

from collections.abc import Callable, Collection, Iterator

from scripts.bench.ground import Ground
from scripts.bench.peers import Peer
from scripts.bench.server import Minio
from scripts.bench.step import FULL, INCREMENTAL, RESTORE, Step, Taker


def take_turn(
    peer: type[Peer], number: int, ground: Ground, change: Callable[[], None], steps: Collection[str]
) -> Iterator[Step]:
    """Full, change, incremental, restore. Raises CommandFailed, and Mismatch when the restored bytes are wrong.

    `change` is called when the image is to be changed. A step that was not asked for is still taken when a later one
    needs it, but not reported.
    """
    wanted = peer.steps & set(steps)
    if not wanted:
        return
    with Minio(ground.store / "minio") as server:
        taker = Taker(peer, ground, server)
        full = taker.take(FULL, taker.peer.full(), number=number)
        if FULL in wanted:
            yield full
        if {INCREMENTAL, RESTORE} & wanted:
            change()
            incremental = taker.take(INCREMENTAL, taker.peer.incremental(), number=number)
            if INCREMENTAL in wanted:
                yield incremental
        if RESTORE in wanted:
            yield taker.restore(number=number)
