"""A store in an S3-compatible bucket. Objects travel through obstore: a seventh of boto3's CPU per request.

obstore's own retries are off: `pipeline.store.retry` is the one place that tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import AccessDenied, CorruptObject, NotFound, StoreError, UsageError
from pipeline.store.address import S3Address
from pipeline.store.base import Abilities, Bytes, ObjectInfo, Store, Versions, check_key, flat, is_key
from pipeline.store.credentials import Credentials, find_credentials
from pipeline.store.probe import probe
from pipeline.store.s3_errors import ROLES, UNSUPPORTED, status_of, translate

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config
    from obstore.store import S3Store as Client

CHUNK = 100
"""Entries of a listing handed over together: so many are asked for again at most when a later page fails."""

CHECKSUM = "crc64nvme"
"""The checksum that AWS recommends: the fastest of those that servers compare."""

PAGE = 1000
"""Keys of one multi-delete: the limit of S3."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `request` covers one whole request with its body; `stall` is silence while an answer is read."""

    connect: float = 10.0
    request: float = 300.0
    stall: float = 60.0


class S3Store(Store):
    """One attempt per call. Buffers returned are the library's own memory, not copies."""

    def __init__(
        self, location: S3Address, *, credentials: Credentials | None = None, timeouts: Timeouts | None = None
    ) -> None:
        self.location = location
        self.name = f"s3://{location.bucket}/{location.prefix}".rstrip("/")
        found = credentials or find_credentials(location.profile)
        self._region = location.region or found.region or "us-east-1"
        self._credentials = found
        self._timeouts = timeouts or Timeouts()
        # Two clients, since a read timeout would also count the time in which a slow line uploads.
        self._writer = self._client(location, stall=None)
        self._reader = self._client(location, stall=self._timeouts.stall)
        self._deleter = self._writer
        self._named_writer = self._writer
        self._named: tuple[str, ...] = ()
        self._versions: Versions | None = None
        self._lock = threading.Lock()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        path = self._path(key)
        with self._explained("put", key):
            writer = self._named_writer if key.startswith(self._named) else self._writer
            writer.put(path, flat(data), use_multipart=False, mode="create" if create else "overwrite")

    def get(self, key: str) -> memoryview:
        path = self._path(key)
        try:
            with self._explained("get", key):
                return memoryview(self._reader.get(path).bytes())
        except AccessDenied as error:
            raise self._denied_or_absent(key, error) from None

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        path = self._path(key)
        if length == 0:
            return self._empty_range(key)
        try:
            with self._explained("get", key):
                part = memoryview(self._reader.get_range(path, start=offset, length=length))
        except AccessDenied as error:
            raise self._denied_or_absent(key, error) from None
        if len(part) != length:
            raise CorruptObject(f"{key} in {self.name} is too short for {length} bytes at {offset}")
        return part

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            with self._explained("head", key):
                meta = self._reader.head(path)
        except (NotFound, AccessDenied):
            # The answer to HEAD has no body, so a missing bucket or a lost proxy looks like an absent key, and a wrong
            # clock or key like a missing right. GET tells.
            try:
                with self._explained("get", key):
                    meta = self._reader.get(path, options={"range": (0, 1)}).meta
            except NotFound:
                return None
            except AccessDenied as error:
                if isinstance(self._denied_or_absent(key, error), NotFound):
                    return None
                raise
            except CorruptObject:  # an empty object, created in between, has no first byte
                with self._explained("head", key):
                    meta = self._reader.head(path)
        return ObjectInfo(key, meta["size"], meta["last_modified"], meta["version"] or "")

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        folder, slash, rest = prefix.rpartition("/")
        if rest and after < prefix:
            # obstore lists whole folders: start behind the prefix itself, which is then asked for by name.
            if is_key(prefix) and (info := self.head(prefix)) is not None:
                yield info
            after = prefix
        yield from self._list_folder(folder + slash, prefix, after)

    def delete_many(self, keys: Iterable[str]) -> None:
        batch: list[str] = []
        for key in keys:
            batch.append(self._path(key))
            if len(batch) == PAGE:
                self._delete(batch)
                batch = []
        if batch:
            self._delete(batch)

    def probe(self) -> Abilities:
        from pipeline.store.bucket import inspect_bucket

        abilities = probe(self)
        bucket = inspect_bucket(self.location, self._region)
        return replace(
            abilities,
            object_lock=bucket.object_lock,
            versioning=bucket.versioning,
            checksum_headers=self._takes_checksums(),
            notes=(*abilities.notes, *bucket.notes),
        )

    def trust_names(self, folders: Sequence[str]) -> None:
        """Over plain http the payload is signed: a hash that costs more CPU than encrypting it. Where the server
        compares a checksum (which the signature covers), that one is enough against damage on the way; someone on the
        wire could as well pretend that an object was stored, and a reader sees either by the object's name."""
        with self._lock:
            if (self.location.endpoint or "").startswith("http:"):
                self._named_writer = self._client(
                    replace(self.location, checksum=self.location.checksum or CHECKSUM), stall=None, signed=False
                )
                self._named = tuple(folder.rstrip("/") + "/" for folder in folders)

    def versions(self) -> Versions:
        from pipeline.store.s3_versions import S3Versions

        with self._lock:
            if self._versions is None:
                self._versions = S3Versions(self.location, self.name, self._region)
            return self._versions

    def close(self) -> None:
        del self._reader, self._writer, self._deleter, self._named_writer

    def _denied_or_absent(self, key: str, denied: AccessDenied) -> StoreError:
        """AWS answers 403 for an absent key unless the right to list has no condition. Our policies have one, so a
        listing tells; `denied` when it is not allowed either."""
        if denied.remedy != ROLES:
            return denied  # it is not about rights
        folder = key[: key.rfind("/") + 1]
        try:
            found = next((i.key for i in self._list_folder(folder, key, key[:-1])), None)
        except StoreError:
            return denied
        return denied if found == key else NotFound(f"{key} is not in {self.name}")

    def _list_folder(self, folder: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        base = self.location.prefix
        last = ""
        with self._explained("list", prefix):
            pages = self._reader.list(base + folder or None, offset=base + after if after else None, chunk_size=CHUNK)
            iterator = iter(pages)
        while True:
            with self._explained("list", prefix):
                page = next(iterator, None)
            if page is None:
                return
            for meta in page:
                key = meta["path"][len(base) :]
                if not is_key(key):
                    continue
                if key <= last:
                    if meta["size"] == 0:
                        continue  # a "folder" that a console made: its key ends with a slash that obstore drops
                    raise StoreError(
                        f"{self.name} lists {key} after {last}: not in key order",
                        remedy="failback needs a store that lists in key order (not an S3 directory bucket)",
                    )
                last = key
                if key <= after:
                    continue  # obstore drops a slash at the end of `after`, and some servers do not know start-after
                if key.startswith(prefix):
                    yield ObjectInfo(key, meta["size"], meta["last_modified"])
                elif key > prefix:
                    return

    def _delete(self, paths: Sequence[str]) -> None:
        from obstore.exceptions import BaseError

        with self._explained("delete", paths[0][len(self.location.prefix) :] + (" ..." if len(paths) > 1 else "")):
            try:
                self._deleter.delete(paths)
            except BaseError as error:
                if status_of(error) not in UNSUPPORTED:
                    raise
                # A server without multi-delete: one request for each key from now on.
                self._deleter = self._client(self.location, stall=None, bulk_delete=False)
                self._deleter.delete(paths)

    def _empty_range(self, key: str) -> memoryview:
        if self.head(key) is None:
            raise NotFound(f"{key} is not in {self.name}")
        return memoryview(b"")

    def _takes_checksums(self) -> bool:
        """Whether a put with a checksum is accepted, and one with a wrong checksum refused."""
        from pipeline.store.bucket import refuses_wrong_checksum

        key = "probe/checksum"
        other = S3Store(replace(self.location, checksum=CHECKSUM), credentials=self._credentials)
        try:
            other.put(key, b"failback")
            other.delete_many([key])
            return refuses_wrong_checksum(self.location, self._region, self._path(key))
        except StoreError:
            return False
        finally:
            other.close()

    def _path(self, key: str) -> str:
        return self.location.prefix + check_key(key)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as error:
            raise translate(error, verb=verb, key=key, bucket=self.location.bucket, name=self.name) from None

    def _client(
        self, location: S3Address, *, stall: float | None, bulk_delete: bool = True, signed: bool = True
    ) -> Client:
        """`signed`: over http the payload is covered by the signature."""
        from obstore.store import S3Store as Client

        timeouts = self._timeouts
        virtual, endpoint = addressing(location, self._region)
        config: S3Config = {
            "endpoint": endpoint,
            "region": self._region,
            "virtual_hosted_style_request": virtual,
            # Over https TLS protects the payload; hashing it once more would cost more CPU than encrypting it.
            "unsigned_payload": not signed or endpoint.startswith("https:"),
        }
        if not bulk_delete:
            config["disable_bulk_delete"] = True
        if location.checksum:
            config["checksum_algorithm"] = location.checksum
        keys = self._credentials
        if keys.access_key:
            config["access_key_id"] = keys.access_key
            config["secret_access_key"] = keys.secret_key
            if keys.token:
                config["session_token"] = keys.token
        options: ClientConfig = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=timeouts.connect),
            "timeout": timedelta(seconds=timeouts.request),
            "user_agent": "failback",
        }
        if stall is not None:
            options["read_timeout"] = timedelta(seconds=stall)
        if location.ca:
            options["root_certificate"] = _read_authority(location.ca)
        return Client(
            location.bucket,
            config=config,
            client_options=options,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
            credential_provider=keys.provider,
        )


def addressing(location: S3Address, region: str) -> tuple[bool, str]:
    """(virtual-hosted?, endpoint as obstore wants it: with the bucket in the host name when virtual-hosted)."""
    if not location.endpoint:
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        endpoint = f"https://s3.{region}.{suffix}"
        # A dot in the bucket's name does not match the wildcard certificate.
        virtual = "." not in location.bucket if location.path_style is None else not location.path_style
    else:
        endpoint = location.endpoint.rstrip("/")
        virtual = location.path_style is False
    if not virtual:
        return False, endpoint
    parts = urlsplit(endpoint)
    return True, f"{parts.scheme}://{location.bucket}.{parts.netloc}{parts.path}"


def _read_authority(path: str) -> bytes:
    remedy = "name a PEM file with the authority's certificates in ca="
    try:
        pem = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the CA file {path}: {error.strerror}", remedy=remedy) from error
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UsageError(f"the CA file {path} holds no certificate", remedy=remedy)
    return pem
