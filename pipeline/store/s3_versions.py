"""Older versions of objects in an S3 bucket, through boto3: rare requests, off the path of the data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import AccessDenied, NotFound, StoreError, StoreUnavailable
from pipeline.store.address import S3Address
from pipeline.store.base import Version, Versions, check_key
from pipeline.store.bucket import client_of, short
from pipeline.store.s3_errors import ROLES


class S3Versions(Versions):
    """Below the prefix of one store."""

    def __init__(self, location: S3Address, name: str, region: str) -> None:
        self._bucket, self._prefix, self._name = location.bucket, location.prefix, name
        self._client = client_of(location, region, connections=32)

    def list_versions(self, key: str) -> list[Version]:
        path = self._prefix + check_key(key)
        found = []
        with explained("s3:ListBucketVersions", key, self._name):
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=path)
            for page in pages:
                entries = [(e, False) for e in page.get("Versions", ())]
                entries += [(e, True) for e in page.get("DeleteMarkers", ())]
                for entry, marker in entries:
                    if entry["Key"] == path:
                        size, at = entry.get("Size", 0), entry["LastModified"]
                        found.append(Version(key, entry["VersionId"], size, at, entry["IsLatest"], marker))
                if any(entry["Key"] > path for entry, _ in entries):
                    break  # keys that go on where this one ends
        # Of two in the same second S3 says only which is the newest of all; the order within a page is newest first.
        return sorted(found, key=lambda version: (not version.newest, -version.modified.timestamp()))

    def get_version(self, version: Version) -> bytes:
        with explained("s3:GetObjectVersion", version.key, self._name):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + version.key, VersionId=version.id)
            return bytes(answer["Body"].read())

    def delete_version(self, version: Version) -> None:
        with explained("s3:DeleteObjectVersion", version.key, self._name):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + version.key, VersionId=version.id)


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
        if "WORM" in str(error) or "object lock" in str(error).lower():
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
