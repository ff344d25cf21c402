"""Object lock: the retention new objects get from the bucket, and longer ones for what live points use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from manifests.names import encode_machine, manifest_key, pack_key, page_key
from pipeline.catalogue import Point, forgotten, load, points, sequence_of
from pipeline.collect.history import histories, histories_of
from pipeline.errors import CatalogueError, CorruptObject, FormatError, NotFound, Unsupported, UsageError
from pipeline.repository import Repository
from pipeline.store.address import Address, S3Address
from pipeline.store.base import Version, Versions
from pipeline.store.bucket import client_of
from pipeline.store.s3_versions import S3Versions, explained
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.relocations import read_relocation, relocated_packs

Mode = Literal["GOVERNANCE", "COMPLIANCE"]
THREADS = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """Until when an object's current version can't be deleted. Those of `mode` GOVERNANCE yield to a special right."""

    mode: Mode
    until: datetime


@dataclass(slots=True)
class Protected:
    """What `Locks.extend` did, in versions: of most objects there is one."""

    extended: int = 0
    already: int = 0
    hidden: list[str] = field(default_factory=list)
    """Keys of objects that somebody deleted; their versions are locked."""
    rewritten: list[str] = field(default_factory=list)
    """Of objects that have several versions; all are locked."""
    missing: list[str] = field(default_factory=list)
    """Of objects of which no version is there."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Keys of everything that some points need, each once, sorted."""

    keys: list[str]
    outlived: frozenset[str]
    """Packs among them that were repaired from elsewhere: they may be gone."""


class Locks:
    """Retention of the objects of one repository. Raises Unsupported for a place that has no object lock."""

    def __init__(self, address: Address) -> None:
        if not isinstance(address, S3Address):
            raise Unsupported(f"{address} has no object lock", remedy="copy it to a bucket that was made with it")
        self._bucket, self._prefix = address.bucket, address.prefix
        self._checksum = address.checksum
        self._aws = not address.endpoint
        self._client = client_of(address, connections=THREADS)
        self.versions: Versions = S3Versions(address, f"bucket {address.bucket}", "")

    def set_default(self, mode: Mode, days: int) -> None:
        """What every object written from now on gets, in the whole bucket, at no cost for each.

        Raises UsageError for a bucket that was not made for it.
        """
        self._require_lock()
        if self._aws and not self._checksum:
            raise UsageError(
                "AWS takes objects into a bucket with a default lock only with a checksum",
                remedy="add checksum=crc64nvme to the repository's address, on every host",
            )
        with explained("s3:PutBucketObjectLockConfiguration", "", f"bucket {self._bucket}"):
            self._client.put_object_lock_configuration(
                Bucket=self._bucket,
                ObjectLockConfiguration={
                    "ObjectLockEnabled": "Enabled",
                    "Rule": {"DefaultRetention": {"Mode": mode, "Days": days}},
                },
            )

    def of(self, key: str, version: str = "") -> Retention | None:
        """Of the newest version, when none is named. None: it is not locked, or no longer. Raises NotFound."""
        from botocore.exceptions import ClientError

        which = {"VersionId": version} if version else {}
        with explained("s3:GetObjectRetention", key, f"bucket {self._bucket}"):
            try:
                found = self._client.get_object_retention(Bucket=self._bucket, Key=self._prefix + key, **which)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchObjectLockConfiguration":
                    return None
                raise
        until = found["Retention"]["RetainUntilDate"]
        return Retention(found["Retention"]["Mode"], until) if until > datetime.now(UTC) else None

    def shortest(self, objects: Objects) -> Retention | None:
        """The one that ends first, of all versions; None when an object has none. Raises UsageError for a bucket
        without object lock, CorruptObject for an object that is gone."""
        self._require_lock()
        tally = Protected()
        wanted = list(self._versions(objects, tally))
        if tally.missing:
            raise _gone(tally.missing)
        found = None
        with ThreadPoolExecutor(THREADS, "locks") as pool:
            for retention in pool.map(lambda version: self.of(version.key, version.id), wanted):
                if retention is None:
                    return None
                if found is None or (retention.until, retention.mode != "GOVERNANCE") < (
                    found.until,
                    found.mode != "GOVERNANCE",
                ):
                    found = retention
        return found

    def extend(self, objects: Objects, until: datetime, mode: Mode) -> Iterator[Protected]:
        """Lock each object at least `until`, never shorter than it is; one that is locked keeps its mode (a store takes
        another only with the right to break locks). Yields the tally as it grows; whatever ends it, the same call goes
        on: objects that are locked long enough are only looked at.

        All versions of an object are locked, since the newest may be a thief's; and what can be is, whatever is gone.
        """
        self._require_lock()
        tally = Protected()

        def one(version: Version) -> bool:
            there = self.of(version.key, version.id)
            if there is not None and there.until >= until:
                return False
            with explained("s3:PutObjectRetention", version.key, f"bucket {self._bucket}"):
                self._client.put_object_retention(
                    Bucket=self._bucket,
                    Key=self._prefix + version.key,
                    VersionId=version.id,
                    Retention={"Mode": there.mode if there else mode, "RetainUntilDate": until},
                )
            return True

        with ThreadPoolExecutor(THREADS, "protect") as pool:
            for extended in pool.map(one, list(self._versions(objects, tally))):
                tally.extended += extended
                tally.already += not extended
                yield tally

    def _versions(self, objects: Objects, tally: Protected) -> Iterator[Version]:
        """All that have bytes."""
        for place, keys in groupby(objects.keys, key=lambda key: key[: key.find("/") + 1]):
            wanted = list(keys)
            there: set[str] = set()
            for history in histories_of(self.versions, place, wanted):
                contents = history.contents
                there.update(version.key for version in contents)
                tally.hidden += [history.key] if history.hidden and contents else []
                tally.rewritten += [history.key] if len(contents) > 1 else []
                yield from contents
            tally.missing += [key for key in wanted if key not in there and key not in objects.outlived]

    def close(self) -> None:
        self._client.close()

    def _require_lock(self) -> None:
        from botocore.exceptions import ClientError

        found: dict[str, Any] = {}
        with explained("s3:GetBucketObjectLockConfiguration", "", f"bucket {self._bucket}"):
            try:
                answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
                found = answer.get("ObjectLockConfiguration", {})
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "ObjectLockConfigurationNotFoundError":
                    raise
        if found.get("ObjectLockEnabled") != "Enabled":
            raise UsageError(
                f"bucket {self._bucket} has no object lock",
                remedy="make a bucket with object lock (`aws s3api create-bucket --object-lock-enabled-for-bucket`)",
            )


def live_points(repository: Repository, versions: Versions, machine: str) -> list[Point]:
    """All usable points of a machine, those too whose manifests somebody deleted and nobody forgot."""
    prefix = f"manifests/{encode_machine(machine)}/"
    deleted = {sequence_of(h.key) for h in histories(versions, prefix) if h.hidden and h.contents}
    hidden = sorted(deleted - forgotten(repository, machine))
    found = [point for sequence in hidden if (point := load(repository, machine, sequence)) is not None]
    with suppress(CatalogueError) if found else nullcontext():
        found += points(repository, machine)
    return sorted(found, key=lambda point: point.manifest.sequence)


def objects_of(repository: Repository, points: Iterable[Point]) -> Objects:
    """Of everything the points need: manifests, index, packs, what stands in for packs, what opens the repository."""
    keys = {"repository.json"} | {info.key for info in repository.store.list("keys/")}
    packs: set[bytes] = set()
    for point in points:
        manifest = point.manifest
        keys.add(manifest_key(manifest.machine.name, manifest.sequence))
        for disk in manifest.disks:
            packs.update(packs_of(repository, disk))
            keys.update(page_key(page) for page in IndexReader(repository, disk).objects())
    relocated = {pack: records for pack, records in relocated_packs(repository).items() if pack in packs}
    for record in [record for records in relocated.values() for record in records]:
        keys.add(record)
        with suppress(FormatError, NotFound):  # a scrub names it; the others are protected all the same
            packs.update(moved.pack for _offset, moved in read_relocation(repository, record))
    keys.update(map(pack_key, packs))
    return Objects(sorted(keys), frozenset(map(pack_key, relocated)))


def _gone(keys: list[str]) -> CorruptObject:
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return CorruptObject(
        f"{keys[0]}{more} is missing from the repository, and no older version of it is there",
        remedy="`failback verify` says what is damaged; repair it from a copy",
    )


def day_after(days: int, now: datetime | None = None) -> datetime:
    """The end of the day `days` from now, UTC: the same call again on one day means the same moment."""
    now = now or datetime.now(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days + 1)
