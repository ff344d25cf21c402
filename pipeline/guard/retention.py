"""Object lock: the retention new objects get from the bucket, and longer ones for what live points use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from manifests.names import manifest_key, pack_key, page_key
from pipeline.catalogue import Point
from pipeline.errors import Unsupported, UsageError
from pipeline.repository import Repository
from pipeline.store.address import Address, S3Address
from pipeline.store.bucket import client_of
from pipeline.store.s3_versions import explained
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of

Mode = Literal["GOVERNANCE", "COMPLIANCE"]
THREADS = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """Until when an object's current version can't be deleted. Those of `mode` GOVERNANCE yield to a special right."""

    mode: Mode
    until: datetime


@dataclass(slots=True)
class Protected:
    """What `Locks.extend` did, in objects."""

    extended: int = 0
    already: int = 0


class Locks:
    """Retention of the objects of one repository. Raises Unsupported for a place that has no object lock."""

    def __init__(self, address: Address) -> None:
        if not isinstance(address, S3Address):
            raise Unsupported(f"{address} has no object lock", remedy="copy it to a bucket that was made with it")
        self._bucket, self._prefix = address.bucket, address.prefix
        self._checksum = address.checksum
        self._aws = not address.endpoint
        self._client = client_of(address, connections=THREADS)

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

    def of(self, key: str) -> Retention | None:
        """None: it is not locked, or no longer. Raises NotFound."""
        from botocore.exceptions import ClientError

        with explained("s3:GetObjectRetention", key, f"bucket {self._bucket}"):
            try:
                found = self._client.get_object_retention(Bucket=self._bucket, Key=self._prefix + key)["Retention"]
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchObjectLockConfiguration":
                    return None
                raise
        until = found["RetainUntilDate"]
        return Retention(found["Mode"], until) if until > datetime.now(UTC) else None

    def shortest(self, keys: Iterable[str]) -> Retention | None:
        """The one that ends first; None when an object has none. Raises UsageError for a bucket without object lock."""
        self._require_lock()
        found = None
        for _key, retention in self._each(keys):
            if retention is None:
                return None
            if found is None or (retention.until, retention.mode != "GOVERNANCE") < (
                found.until,
                found.mode != "GOVERNANCE",
            ):
                found = retention
        return found

    def extend(self, keys: Iterable[str], until: datetime, mode: Mode) -> Iterator[Protected]:
        """Lock each object at least `until`, never shorter than it is; one that is locked keeps its mode (a store takes
        another only with the right to break locks). Yields the tally as it grows; whatever ends it, the same call goes
        on: objects that are locked long enough are only looked at."""
        self._require_lock()
        tally = Protected()

        def one(key: str) -> bool:
            there = self.of(key)
            if there is not None and there.until >= until:
                return False
            with explained("s3:PutObjectRetention", key, f"bucket {self._bucket}"):
                self._client.put_object_retention(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Retention={"Mode": there.mode if there else mode, "RetainUntilDate": until},
                )
            return True

        with ThreadPoolExecutor(THREADS, "protect") as pool:
            for extended in pool.map(one, list(keys)):
                tally.extended += extended
                tally.already += not extended
                yield tally

    def close(self) -> None:
        self._client.close()

    def _each(self, keys: Iterable[str]) -> Iterator[tuple[str, Retention | None]]:
        wanted = list(keys)
        with ThreadPoolExecutor(THREADS, "locks") as pool:
            yield from zip(wanted, pool.map(self.of, wanted), strict=True)

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


def objects_of(repository: Repository, points: Iterable[Point]) -> list[str]:
    """Keys of everything the points need: manifests, index, packs, what opens the repository. Each once, sorted."""
    keys = {"repository.json"} | {info.key for info in repository.store.list("keys/")}
    for point in points:
        manifest = point.manifest
        keys.add(manifest_key(manifest.machine.name, manifest.sequence))
        for disk in manifest.disks:
            keys.update(pack_key(pack) for pack in packs_of(repository, disk))
            keys.update(page_key(page) for page in IndexReader(repository, disk).objects())
    return sorted(keys)


def day_after(days: int, now: datetime | None = None) -> datetime:
    """The end of the day `days` from now, UTC: the same call again on one day means the same moment."""
    now = now or datetime.now(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days + 1)
