"""What an export builds on: the newest usable point, and other points that it may share chunks with."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from manifests.manifest import Disk
from manifests.names import manifest_key
from pipeline.catalogue import Point, forgotten, load, notice, sequences
from pipeline.errors import CorruptObject, NotFound, SessionFenced
from pipeline.repository import Repository


def newest_parent(repository: Repository, machine: str, known: int, *, wanted: bool) -> tuple[Point | None, int]:
    """The newest usable point (if wanted: a damaged one must not stand in the way of a full export), and the next
    free sequence."""
    after = max(known - 1, 0)
    taken = sequences(repository, machine, after=after)
    gone = forgotten(repository, machine, after=after)
    if not after or taken or gone:
        notice(repository, machine, taken, gone)
    # A forgotten point's manifest may be gone, its number is not free.
    following = max([*taken, *gone], default=0) + 1
    for sequence in reversed(taken) if wanted else ():
        if sequence in gone:
            continue
        try:
            point = load(repository, machine, sequence)
        except CorruptObject as error:
            raise CorruptObject(
                error.message, remedy=f"no increment can build on it: export {machine} with --full to begin anew"
            ) from error
        if point is not None:
            return point, following
    if after and (wanted or not taken):
        return newest_parent(repository, machine, 0, wanted=wanted)
    return None, following


def disk_of(point: Point | None, number: int) -> Disk | None:
    return next((d for d in point.manifest.disks if d.number == number), None) if point else None


def check_roots(repository: Repository, points: Iterable[Point]) -> None:
    """After the session is announced: what it builds on must still be there, or a collector may not have seen us.

    Raises SessionFenced when a point was forgotten, CorruptObject when its manifest is not the announced one.
    """
    for point in points:
        manifest = point.manifest
        key = manifest_key(manifest.machine.name, manifest.sequence)
        gone = manifest.sequence in forgotten(repository, manifest.machine.name, after=manifest.sequence - 1)
        try:
            found = b"" if gone else repository.store.get(key)
        except NotFound:
            gone = True
        if gone:
            raise SessionFenced(
                f"{manifest.label} was forgotten while this export began",
                remedy="nothing was committed; run the same command again",
            )
        if blake3(found).hexdigest() != point.object_hash:
            raise CorruptObject(
                f"{key} was replaced or damaged while this export began: it is not the manifest that was announced",
                remedy=f"nothing was committed; `failback verify {manifest.label}` tells whether it is whole, "
                "--full begins anew",
            )
