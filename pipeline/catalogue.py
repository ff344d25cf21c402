"""What a repository holds: machines, recovery points, and forgetting them."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from blake3 import blake3

from manifests.envelope import Kind, generation_of
from manifests.manifest import Manifest, decode_manifest, decode_record, encode_record
from manifests.names import PointName, decode_machine, encode_machine, manifest_key, tombstone_key
from pipeline.errors import (
    AlreadyExists,
    CatalogueError,
    CorruptObject,
    FailbackError,
    FormatError,
    KeyRefused,
    NotFound,
    UsageError,
)
from pipeline.repository import Repository
from pipeline.store.base import Bytes
from pipeline.store.older import older


@dataclass(frozen=True, slots=True)
class Point:
    """A recovery point as it was read: `object_hash` is BLAKE3 of the stored manifest."""

    manifest: Manifest
    object_hash: str
    stored: int
    generation: int = 0
    """Of the keys that it and all it refers to are sealed with; 0 when not encrypted."""


def now() -> str:
    """RFC 3339, UTC, this host's clock."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def machines(repository: Repository) -> list[str]:
    """Names of all machines that ever had a manifest key, sorted."""
    found: list[str] = []
    after = ""
    while True:
        # One key per machine: the next listing starts behind everything of this machine.
        info = next(iter(repository.store.list("manifests/", after=after)), None)
        if info is None:
            return sorted(found)
        part = info.key.split("/")[1]
        found.append(decode_machine(part))
        after = f"manifests/{part}/~"


def sequences(repository: Repository, machine: str, *, after: int = 0) -> list[int]:
    """All sequence numbers above `after` that are taken, ascending: points, forgotten points and void records."""
    prefix = f"manifests/{encode_machine(machine)}/"
    start = manifest_key(machine, after) if after else ""
    return [sequence_of(info.key) for info in repository.store.list(prefix, after=start)]


def forgotten(repository: Repository, machine: str, *, after: int = 0) -> set[int]:
    prefix = f"tombstones/{encode_machine(machine)}/"
    start = tombstone_key(machine, after) if after else ""
    return {sequence_of(info.key) for info in repository.store.list(prefix, after=start)}


def check_tombstones(repository: Repository, machine: str, hidden: Iterable[int]) -> None:
    """A point that is there and counts as forgotten is hidden by its tombstone alone: it must be whole, and written by
    someone who may. Raises FormatError when it is not: the point is neither usable nor forgotten then.
    """
    for sequence in sorted(hidden):
        key = tombstone_key(machine, sequence)
        try:
            data = repository.store.get(key)
        except NotFound:
            continue  # taken back a moment ago
        try:
            decode_record(memoryview(data), Kind.TOMBSTONE, sealing=repository.sealing, key=key)
        except FormatError as error:
            error.remedy = f"remove it, and forget {machine}@{sequence} again if that is what you want"
            raise


def sequence_of(key: str) -> int:
    """The sequence in a key of a manifest or tombstone. Raises CorruptObject."""
    part = key.rsplit("/", 1)[1]
    if len(part) != 10 or not part.isdigit():
        raise CorruptObject(f"{key} is not a key of failback", remedy="remove it, if you know who put it there")
    return int(part)


def load(repository: Repository, machine: str, sequence: int) -> Point | None:
    """The point, or None for a void record. Raises CatalogueError when the key does not exist, CorruptObject when it is
    damaged, Forged when this host has seen another point there.

    Where the store keeps versions, the first one that is whole stands in for a newest that is not or was deleted, and
    for a void record that was put over a point.
    """
    key = manifest_key(machine, sequence)

    def whole(data: bytes) -> Point | None:
        try:
            return _read(repository, machine, sequence, data)
        except (FormatError, KeyRefused):
            return None

    try:
        data = repository.store.get(key)
    except NotFound:
        unknown = _unknown(repository, machine, sequence)
        return _stood_in(repository, key, older(repository.store, key, whole, unknown, oldest_first=True), unknown)
    try:
        point = _read(repository, machine, sequence, data)
    except (FormatError, KeyRefused) as error:
        return _stood_in(repository, key, older(repository.store, key, whole, error, oldest_first=True), error)
    if point is None and repository.document.abilities.get("versioning"):
        void = CatalogueError(f"{machine}@{sequence} is void")
        if (point := older(repository.store, key, whole, void, oldest_first=True)) is not None:
            repository.stood_in.add(key)
    return point


def _stood_in(repository: Repository, key: str, found: Point | None, error: FailbackError) -> Point:
    if found is None:
        raise error
    repository.stood_in.add(key)
    return found


def _read(repository: Repository, machine: str, sequence: int, data: Bytes) -> Point | None:
    key = manifest_key(machine, sequence)
    manifest = decode_manifest(memoryview(data), sealing=repository.sealing, key=key)
    if manifest is None:
        if repository.seen is not None:
            repository.seen.notice_point(machine, sequence, "", repository.store.name)
        return None
    if manifest.sequence != sequence or encode_machine(manifest.machine.name) != encode_machine(machine):
        raise CorruptObject(f"{key} holds the manifest of {manifest.label}", remedy="someone moved objects by hand")
    point = Point(manifest, blake3(data).hexdigest(), len(data), generation_of(memoryview(data)))
    if repository.seen is not None:
        repository.seen.notice_point(manifest.machine.name, sequence, point.object_hash, repository.store.name)
    return point


def latest(repository: Repository, machine: str, *, known: int = 0) -> Point | None:
    """The highest point that is neither void nor forgotten, or None. `known`: a sequence surely taken, to list less."""
    taken = sequences(repository, machine, after=max(known - 1, 0))
    gone = forgotten(repository, machine, after=max(known - 1, 0))
    if not known or taken or gone:
        notice(repository, machine, taken, gone)
    for sequence in reversed(taken):
        if sequence in gone:
            check_tombstones(repository, machine, [sequence])
            continue
        point = load(repository, machine, sequence)
        if point is not None:
            return point
    return latest(repository, machine) if known > 1 else None


def notice(repository: Repository, machine: str, taken: Collection[int], gone: Collection[int]) -> None:
    """Raises KeyRefused when the machine has fewer points than this host has seen of it."""
    if repository.seen is not None:
        repository.seen.notice(machine, max([*taken, *gone], default=0), repository.store.name)


def resolve(repository: Repository, name: PointName) -> Point:
    """The point a user named. Raises CatalogueError when there is none, or it is void or forgotten."""
    if name.sequence is None:
        point = latest(repository, name.machine)
        if point is None:
            raise _unknown(repository, name.machine, None)
        return point
    if name.sequence in forgotten(repository, name.machine, after=name.sequence - 1):
        check_tombstones(repository, name.machine, [name.sequence])
        raise CatalogueError(
            f"{name.machine}@{name.sequence} was forgotten",
            remedy=f"`failback list {name.machine}` shows the points that can be used",
        )
    point = load(repository, name.machine, name.sequence)
    if point is None:
        raise CatalogueError(
            f"{name.machine}@{name.sequence} is void: its export was fenced and never completed",
            remedy=f"`failback list {name.machine}` shows the points that can be used",
        )
    return point


def points(repository: Repository, machine: str) -> Iterator[Point]:
    """All usable points of a machine, oldest first."""
    gone = forgotten(repository, machine)
    taken = sequences(repository, machine)
    notice(repository, machine, taken, gone)
    check_tombstones(repository, machine, gone.intersection(taken))
    if not taken:
        raise _unknown(repository, machine, None)
    for sequence in taken:
        if sequence not in gone:
            point = load(repository, machine, sequence)
            if point is not None:
                yield point


def mismatch(child: Point, hashes: Mapping[int, str]) -> str:
    """What is wrong when the parent of a point, by the `hashes` of manifests of its machine (empty: a void record), is
    not the one that it was built on; empty when it is, or not known. A manifest is written once; only somebody with the
    keys of its machine can sign another one."""
    parent = child.manifest.parent
    if parent is None or hashes.get(parent.sequence, parent.manifest) == parent.manifest:
        return ""
    label = f"{child.manifest.machine.name}@{parent.sequence}"
    return f"{label} is not the manifest that {child.manifest.label} was built on: one of them was overwritten"


def forget(repository: Repository, point: Point, *, reason: str) -> None:
    """Write the tombstone of a point. Its objects stay until a collection."""
    manifest = point.manifest
    _bury(repository, manifest.machine.name, manifest.sequence, reason=reason, manifest=point.object_hash)


def forget_lost(repository: Repository, name: PointName, *, reason: str) -> None:
    """The tombstone of a point whose manifest is gone or damaged. Raises UsageError when it can be read: nothing is
    given up for lost by a slip."""
    taken = [*sequences(repository, name.machine), *forgotten(repository, name.machine)]
    if name.sequence is None or name.sequence > max(taken, default=0) + 1:
        raise _unknown(repository, name.machine, name.sequence)
    try:
        found = load(repository, name.machine, name.sequence)
    except (CatalogueError, CorruptObject):
        found = None
    if found is not None:  # a void record may have been put over a point
        raise UsageError(
            f"{name.machine}@{name.sequence} is there and can be read", remedy="leave --missing away to forget it"
        )
    _bury(repository, name.machine, name.sequence, reason=reason, manifest="")


def _bury(repository: Repository, machine: str, sequence: int, *, reason: str, manifest: str) -> None:
    record = {
        "time": now(),
        "by": f"{getpass.getuser()}@{socket.gethostname()}",
        "reason": reason,
        "manifest": manifest,
    }
    key = tombstone_key(machine, sequence)
    try:
        data = encode_record(Kind.TOMBSTONE, record, sealing=repository.sealing, key=key)
        repository.store.put(key, data, create=repository.conditional_put)
    except AlreadyExists as error:
        raise CatalogueError(f"{machine}@{sequence} is already forgotten") from error


def _unknown(repository: Repository, machine: str, sequence: int | None) -> CatalogueError:
    known = machines(repository)
    if machine in known and sequence is not None:
        return CatalogueError(
            f"{machine} has no recovery point {sequence}", remedy=f"`failback list {machine}` shows its points"
        )
    if machine in known:
        return CatalogueError(f"{machine} has no usable recovery point", remedy="all are void or forgotten")
    listed = ", ".join(known[:10]) + (" …" if len(known) > 10 else "")
    return CatalogueError(
        f"there is no machine {machine!r} in {repository.store.name}",
        remedy=f"it holds: {listed}" if known else "it is empty: `failback export` fills it",
    )
