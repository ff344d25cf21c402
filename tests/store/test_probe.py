"""A store that cannot do something is found out, and the probe leaves nothing behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from servers import Server, make_bucket

from pipeline.errors import AccessDenied, StoreUnavailable
from pipeline.store.address import S3Address
from pipeline.store.base import Bytes, ObjectInfo
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.store.memory import MemoryStore
from pipeline.store.probe import probe
from pipeline.store.s3 import S3Store


class Careless(MemoryStore):
    """Ignores create-only and `after`, as some S3-compatible servers do."""

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        super().put(key, data)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return super().list(prefix)


def test_missing_abilities_are_found_and_said() -> None:
    store = Careless()
    abilities = probe(store)
    assert not abilities.conditional_put
    assert not abilities.list_after
    assert abilities.ranged_get
    assert {note.partition(":")[0] for note in abilities.notes} == {"conditional_put", "list_after"}
    assert list(store.list("")) == []


def test_a_store_that_may_not_be_written_is_an_error_and_not_a_missing_ability() -> None:
    with pytest.raises(AccessDenied):
        probe(FaultyStore(MemoryStore(), [Rule(Fail(AccessDenied("no")), verb="put")]))


def test_a_store_that_goes_away_meanwhile_is_an_error_and_leaves_nothing_behind() -> None:
    inner = MemoryStore()
    with pytest.raises(StoreUnavailable):
        probe(FaultyStore(inner, [Rule(Fail(StoreUnavailable("down")), verb="get_range")]))
    assert list(inner.list("")) == []


def test_a_bucket_with_object_lock_is_recognised_and_can_be_written(minio_endpoint: Server) -> None:
    bucket = f"locked-{secrets.token_hex(4)}"
    make_bucket(minio_endpoint, bucket, ObjectLockEnabledForBucket=True)
    store = S3Store(S3Address(bucket, "", minio_endpoint.endpoint, checksum="crc64nvme"))
    abilities = store.probe()
    assert abilities.object_lock
    assert abilities.versioning
    assert abilities.checksum_headers
    assert abilities.conditional_put


def test_an_ordinary_bucket_has_neither_lock_nor_versions(s3_endpoint: Server) -> None:
    abilities = S3Store(S3Address(s3_endpoint.bucket, "probing/", s3_endpoint.endpoint)).probe()
    assert not abilities.object_lock
    assert not abilities.versioning
