"""Versions of objects: what MinIO does with them, and the simulator as MinIO does."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backends import login
from servers import Server, make_bucket, s3_client
from simulators.versioned_store import VersionedStore

from pipeline.errors import NotFound
from pipeline.store.address import S3Address, parse_address
from pipeline.store.base import Store, Version, Versions
from pipeline.store.s3 import S3Store

DAYS = 2


class Kept:
    """A store that keeps versions, and how to lock what is written."""

    def __init__(self, store: Store, bucket: str = "", client: Any = None) -> None:
        self.store, self._bucket, self._client = store, bucket, client
        found = store.versions()
        assert found is not None
        self.versions: Versions = found

    def lock_from_now_on(self) -> None:
        if isinstance(self.store, VersionedStore):
            self.store.lock = timedelta(days=DAYS)
            return
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": DAYS}}
        self._client.put_object_lock_configuration(
            Bucket=self._bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )

    @property
    def now(self) -> datetime:
        return self.store.now if isinstance(self.store, VersionedStore) else datetime.now(UTC)

    def all(self, prefix: str = "", after: str = "") -> list[tuple[str, bytes | None]]:
        """(key, bytes; None: a marker), as a walk has them."""
        return [(v.key, self.bytes_of(v)) for v in self.versions.walk(prefix, after=after)]

    def bytes_of(self, version: Version) -> bytes | None:
        return None if version.marker else self.versions.get_version(version)


@pytest.fixture(params=["simulated", "minio"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kept:
    if request.param == "simulated":
        return Kept(VersionedStore())
    server: Server = login(request.getfixturevalue("minio"), monkeypatch)
    bucket = f"versions-{secrets.token_hex(6)}"
    make_bucket(server, bucket, ObjectLockEnabledForBucket=True)
    parsed = parse_address(replace(server, bucket=bucket).address("a/prefix"))
    assert isinstance(parsed, S3Address)
    return Kept(S3Store(parsed), bucket, s3_client(server))


def test_a_walk_has_every_version_in_order_the_newest_of_a_key_first(kept: Kept) -> None:
    store = kept.store
    for key, data in (("b/1", b"one"), ("a/2", b"old"), ("b/1", b"two"), ("b/10", b"ten"), ("c/3", b"last")):
        store.put(key, data)
    store.delete_many(["b/1", "c/3"])
    assert kept.all() == [
        ("a/2", b"old"), ("b/1", None), ("b/1", b"two"), ("b/1", b"one"), ("b/10", b"ten"), ("c/3", None),
        ("c/3", b"last"),
    ]  # fmt: skip
    assert [key for key, _ in kept.all("b/")] == ["b/1"] * 3 + ["b/10"]
    assert [key for key, _ in kept.all("", after="b/1")] == ["b/10", "c/3", "c/3"]
    assert [key for key, _ in kept.all("b/", after="b/")] == ["b/1"] * 3 + ["b/10"]
    assert [v.newest for v in kept.versions.list_versions("b/1")] == [True, False, False]


def test_a_walk_goes_on_over_many_pages(kept: Kept) -> None:
    for number in range(1100):
        kept.store.put("a/often", str(number).encode())
    kept.store.put("b/once", b"x")
    found = list(kept.versions.walk(""))
    assert [v.key for v in found] == ["a/often"] * 1100 + ["b/once"]
    assert [kept.bytes_of(v) for v in (found[0], found[1099])] == [b"1099", b"0"]
    assert kept.versions.delete_versions(found[:1100]) == []
    assert kept.all() == [("b/once", b"x")]


def test_an_older_version_comes_into_view_when_those_above_it_are_deleted(kept: Kept) -> None:
    kept.store.put("k", b"one")
    kept.store.put("k", b"two")
    kept.store.delete_many(["k"])
    marker, two, one = kept.versions.list_versions("k")
    assert kept.store.head("k") is None
    kept.versions.delete_versions([marker])
    assert bytes(kept.store.get("k")) == b"two"
    kept.versions.delete_versions([two, two])
    assert bytes(kept.store.get("k")) == b"one"
    with pytest.raises(NotFound):
        kept.versions.get_version(two)
    kept.versions.delete_versions([two, one])
    assert kept.all() == []


def test_locked_versions_stay_and_are_named_with_their_end(kept: Kept) -> None:
    kept.store.put("free", b"1")
    kept.lock_from_now_on()
    kept.store.put("locked", b"22")
    kept.store.delete_many(["locked"])
    entries = list(kept.versions.walk(""))
    [lock] = kept.versions.delete_versions([v for v in entries if not v.marker])
    assert lock.version.key == "locked"
    assert lock.until is not None
    assert timedelta(days=DAYS - 1) < lock.until - kept.now <= timedelta(days=DAYS)
    assert kept.all() == [("locked", None), ("locked", b"22")]


def test_a_head_request_says_that_the_bucket_keeps_versions(kept: Kept) -> None:
    kept.store.put("k", b"1")
    info = kept.store.head("k")
    assert info is not None
    assert info.version == kept.versions.list_versions("k")[0].id


def test_a_bucket_without_versions_says_so(minio: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = parse_address(login(minio, monkeypatch).address())
    assert isinstance(parsed, S3Address)
    store = S3Store(parsed)
    store.put("k", b"1")
    info = store.head("k")
    assert info is not None
    assert not info.version
