"""What a bucket that keeps versions holds of each key, and deleting all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from pipeline.store.base import Locked, ObjectInfo, Version, Versions

BATCH = 1000
"""Versions deleted together: the limit of S3."""
_SKIP = 1000
"""After so many versions that nobody asked for a walk begins anew further on: they are a page of S3."""


@dataclass(frozen=True, slots=True)
class History:
    """All versions of one key, the newest first: at least one."""

    versions: Sequence[Version]

    @property
    def key(self) -> str:
        return self.versions[0].key

    @property
    def hidden(self) -> bool:
        """A deletion hides it: no listing has it."""
        return self.versions[0].marker

    @property
    def info(self) -> ObjectInfo:
        """As a listing would say of its newest version. Hidden: `modified` is when it was deleted."""
        newest = self.versions[0]
        return ObjectInfo(self.key, newest.size, newest.modified)

    @property
    def others(self) -> int:
        """Bytes of all versions but the newest."""
        return sum(version.size for version in self.versions[1:])

    def replaced(self, before: float) -> list[Version]:
        """Versions that were overwritten or deleted before that time; deletions that are the newest, too."""
        pairs = zip(self.versions[1:], self.versions, strict=False)
        old = [version for version, newer in pairs if newer.modified.timestamp() < before]
        newest = self.versions[0]
        return [newest, *old] if newest.marker and newest.modified.timestamp() < before else old

    @property
    def contents(self) -> list[Version]:
        """Those that have bytes, the newest first."""
        return [version for version in self.versions if not version.marker]


def histories(versions: Versions, prefix: str, *, after: str = "") -> Iterator[History]:
    """Of all keys that start with `prefix` and sort after `after`, in order."""
    for _key, found in groupby(versions.walk(prefix, after=after), key=lambda version: version.key):
        yield History(list(found))


def histories_of(versions: Versions, prefix: str, keys: Iterable[str]) -> Iterator[History]:
    """Of `keys`, which are in order and start with `prefix`; absent ones are left out. No more requests than a walk of
    the whole prefix has pages, or than there are keys."""
    walk: Iterator[History] | None = None
    at: History | None = None
    for key in keys:
        skipped = 0
        while walk is None or (at is not None and at.key < key):
            # Behind the key without its last letter there are but a few others.
            if walk is None or (at is not None and skipped > _SKIP and at.key <= key[:-1]):
                walk, skipped = histories(versions, prefix, after=key[:-1]), 0
            elif at is not None:
                skipped += len(at.versions)
            at = next(walk, None)
        if at is not None and at.key == key:
            yield at


@dataclass(slots=True)
class Erased:
    """What became of versions. Markers are not counted: they have no bytes."""

    count: int = 0
    bytes: int = 0
    locked: int = 0
    locked_bytes: int = 0
    first: datetime | None = None
    """When the lock of the first of those that are locked ends."""
    last: datetime | None = None
    """When that of the last one ends."""
    endless: int = 0
    """Locked until somebody takes a legal hold away."""


def erase(versions: Versions, doomed: Iterable[Sequence[Version]], tally: Erased) -> None:
    """Delete versions, those of one key together: first what has bytes, and markers only when nothing is left that they
    hide. So nothing comes back into view, whatever ends it in between.

    Locked ones stay and are counted. Raises StoreError when something else keeps one.
    """
    batch: list[Version] = []
    for some in doomed:
        batch += some
        if len(batch) >= BATCH:
            _erase(versions, batch, tally)
            batch = []
    if batch:
        _erase(versions, batch, tally)


def _erase(versions: Versions, batch: list[Version], tally: Erased) -> None:
    contents = [version for version in batch if not version.marker]
    locked = versions.delete_versions(contents) if contents else []
    for lock in locked:
        _count_lock(lock, tally)
    tally.count += len(contents) - len(locked)
    tally.bytes += sum(v.size for v in contents) - sum(lock.version.size for lock in locked)
    kept = {lock.version.key for lock in locked}
    markers = [version for version in batch if version.marker and version.key not in kept]
    if markers:
        versions.delete_versions(markers)


def _count_lock(lock: Locked, tally: Erased) -> None:
    tally.locked += 1
    tally.locked_bytes += lock.version.size
    if lock.until is None:
        tally.endless += 1
    else:
        tally.first = min(tally.first or lock.until, lock.until)
        tally.last = max(tally.last or lock.until, lock.until)
