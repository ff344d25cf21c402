"""Older versions of objects in an S3 bucket, through boto3: rare requests, off the path of the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby, islice
from typing import Any

from pipeline.errors import AccessDenied, NotFound, StoreError, StoreUnavailable
from pipeline.store.address import S3Address
from pipeline.store.base import Locked, Version, Versions, check_key, is_key
from pipeline.store.bucket import client_of, short
from pipeline.store.s3_errors import ROLES

PAGE = 1000
"""Versions of one multi-delete: the limit of S3."""
_CONNECTIONS = 32
_THREADS = 16
_UNLOCKED = ("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest")
"""Codes by which a server says that an object, or its bucket, has no retention. (MinIO says InvalidRequest of a bucket
that was not made with object lock.)"""


class S3Versions(Versions):
    """Below the prefix of one store."""

    def __init__(self, location: S3Address, name: str, region: str) -> None:
        self._bucket, self._prefix, self._name = location.bucket, location.prefix, name
        self._client = client_of(location, region, connections=_CONNECTIONS)

    def list_versions(self, key: str) -> list[Version]:
        found = []
        for version in self.walk(check_key(key)):
            if version.key != key:
                break  # keys that go on where this one ends
            found.append(version)
        return found

    def walk(self, prefix: str, *, after: str = "") -> Iterator[Version]:
        # Of two in the same second S3 says only which is the newest of all; the order within a page is newest first.
        for _key, versions in groupby(self._entries(prefix, after), key=lambda version: version.key):
            yield from sorted(versions, key=lambda version: (not version.newest, -version.modified.timestamp()))

    def get_version(self, version: Version) -> bytes:
        with explained("s3:GetObjectVersion", version.key, self._name):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + version.key, VersionId=version.id)
            return bytes(answer["Body"].read())

    def delete_versions(self, versions: Iterable[Version]) -> list[Locked]:
        left = iter(versions)
        locked: list[Locked] = []
        while batch := list(islice(left, PAGE)):
            which = [{"Key": self._prefix + version.key, "VersionId": version.id} for version in batch]
            with explained("s3:DeleteObjectVersion", batch[0].key, self._name):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": which, "Quiet": True})
            by_id = {(self._prefix + version.key, version.id): version for version in batch}
            refused = [(by_id[e["Key"], e["VersionId"]], e) for e in answer.get("Errors", ())]
            with ThreadPoolExecutor(_THREADS, "locks") as pool:
                locked += [lock for lock in pool.map(lambda pair: self._why(*pair), refused) if lock is not None]
        return locked

    def _entries(self, prefix: str, after: str) -> Iterator[Version]:
        base = self._prefix
        last = ""
        with explained("s3:ListBucketVersions", prefix, self._name):
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=base + prefix, **({"KeyMarker": base + after} if after else {})
            )
            iterator = iter(pages)
        while True:
            with explained("s3:ListBucketVersions", prefix, self._name):
                page = next(iterator, None)
            if page is None:
                return
            entries = [(entry, False) for entry in page.get("Versions", ())]
            entries += [(entry, True) for entry in page.get("DeleteMarkers", ())]
            for entry, marker in sorted(entries, key=lambda pair: str(pair[0]["Key"])):
                key = entry["Key"][len(base) :]
                if not is_key(key):
                    continue
                if key < last:
                    raise StoreError(
                        f"{self._name} lists versions of {key} after those of {last}: not in key order",
                        remedy="failback needs a store that lists in key order (not an S3 directory bucket)",
                    )
                last = key
                size, at = entry.get("Size", 0), entry["LastModified"]
                yield Version(key, entry["VersionId"], size, at, entry["IsLatest"], marker)

    def _why(self, version: Version, refusal: dict[str, Any]) -> Locked | None:
        """Why a multi-delete left a version. None: it is gone."""
        code, text = refusal.get("Code", ""), refusal.get("Message", "")
        what = f"cannot delete version {version.id} of {version.key} in {self._name}: {code} ({text})"
        if code in ("NoSuchKey", "NoSuchVersion"):
            return None
        if _is_lock(text):
            return Locked(version, self._locked_until(version))
        if code == "AccessDenied":
            try:
                until = self._locked_until(version)
            except AccessDenied:
                until = None
            if until is not None:
                return Locked(version, until)
            raise AccessDenied(f"{what}; the credentials lack s3:DeleteObjectVersion on {version.key}", remedy=ROLES)
        if code in ("SlowDown", "InternalError", "ServiceUnavailable"):
            raise StoreUnavailable(what, remedy="check the store's health")
        raise StoreError(what, remedy="look at the object with the store's own tools")

    def _locked_until(self, version: Version) -> datetime | None:
        from botocore.exceptions import ClientError

        with explained("s3:GetObjectRetention", version.key, self._name):
            try:
                found = self._client.get_object_retention(
                    Bucket=self._bucket, Key=self._prefix + version.key, VersionId=version.id
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _UNLOCKED:
                    return None
                raise
        until: datetime = found["Retention"]["RetainUntilDate"]
        return until


def _is_lock(text: str) -> bool:
    return "WORM" in text or "object lock" in text.lower()


@contextmanager
def explained(action: str, key: str, name: str) -> Iterator[None]:
    """Errors of boto3 as those of a store; `action` is the right that a refusal is about."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        what = f"{action} on {key or 'the bucket'} in {name}: {short(error)}"
        if code in ("NoSuchKey", "NoSuchVersion"):
            raise NotFound(what) from None
        if _is_lock(str(error)):
            raise AccessDenied(what, remedy="the object is locked: its lock ends by itself") from None
        if status in (401, 403):
            raise AccessDenied(f"the credentials lack the right to {what}", remedy=ROLES) from None
        if status >= 500 or status == 429:
            raise StoreUnavailable(what, remedy="check the store's health") from None
        raise StoreError(what, remedy="look at the bucket's settings with the store's own tools") from None
    except BotoCoreError as error:
        raise StoreUnavailable(
            f"{action} on {key or 'the bucket'} in {name}: {short(error)}", remedy="check the network and the store"
        ) from None
