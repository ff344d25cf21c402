"""An address means one place, is refused when it means none, and never carries or repeats a secret."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from servers import Server

from pipeline.config import Settings
from pipeline.errors import AlreadyExists, UsageError
from pipeline.store.adaptive import AdaptiveStore
from pipeline.store.address import DirectoryAddress, MemoryAddress, S3Address, parse_address
from pipeline.store.limit import LimitStore
from pipeline.store.open import open_store
from pipeline.store.retry import RetryStore
from pipeline.store.trace import Tally, TraceStore


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", S3Address("bucket")),
        ("s3://bucket/", S3Address("bucket")),
        ("s3://bucket/a/b", S3Address("bucket", "a/b/")),
        ("s3://bucket/a/b/", S3Address("bucket", "a/b/")),
        (
            "s3://b/p?endpoint=https://host:9000&region=eu&path_style=no&profile=home&ca=/etc/ca.pem&checksum=sha256",
            S3Address("b", "p/", "https://host:9000", "eu", False, "home", "/etc/ca.pem", "sha256"),
        ),
        ("s3://b?path_style=TRUE", S3Address("b", path_style=True)),
        ("s3://b?endpoint=http%3A%2F%2Fhost", S3Address("b", endpoint="http://host")),
        ("/a/b", DirectoryAddress(Path("/a/b"))),
        ("file:///a/b%20c", DirectoryAddress(Path("/a/b c"))),
        ("memory://x", MemoryAddress("x")),
    ],
)
def test_an_address_is_understood(text: str, expected: object) -> None:
    assert parse_address(text) == expected


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_address("./rel") == DirectoryAddress(tmp_path / "rel")
    assert parse_address("rel/deep") == DirectoryAddress(tmp_path / "rel/deep")
    assert parse_address("~/repo") == DirectoryAddress(Path("/home/me/repo"))


@pytest.mark.parametrize("text", ["s3://b/p?endpoint=http://h:1&path_style=true&profile=x", "/a/b", "memory://x"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text
    assert parse_address(str(parse_address(text))) == parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " /a",
        "/a\n",
        "s3:bucket",
        "s3:/bucket",
        "s3://",
        "s3:///key",
        "s3://bucket:9000/p",
        "s3://bucket:port/p",
        "s3://bucket/p#x",
        "s3://bucket/a b",
        "s3://bucket/.hidden",
        "s3://bucket?endpoint=host:9000",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://host:x",
        "s3://bucket?endpoint=http://host/?a=b",
        "s3://bucket?path_style=perhaps",
        "s3://bucket?checksum=md5",
        "s3://bucket?region=a&region=b",
        "https://host/bucket",
        "gs://bucket",
        "file://relative",
        "file://host/path",
        "memory://a b",
    ],
)
def test_an_address_that_means_nothing_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.remedy


def test_an_unknown_option_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match=r"'regoin'.*\n.*known are endpoint, region"):
        parse_address("s3://bucket?regoin=eu")


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKID:HIDDEN@bucket/p",
        "s3://HIDDEN@bucket/p",
        "s3://bucket?access_key=HIDDEN",
        "s3://bucket?aws_secret_access_key=HIDDEN",
        "s3://bucket?session_token=HIDDEN",
        "s3://bucket?password=HIDDEN",
        "s3://bucket?X-Amz-Signature=HIDDEN",
        "s3://bucket?endpoint=https://AKID:HIDDEN@host",
        "s3://bucket:HIDDEN/p",
        "https://AKID:HIDDEN@host/bucket",
        "s4://AKID:HIDDEN@host/bucket",
        "s3:AKID:HIDDEN@host",
    ],
)
def test_a_secret_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    error = caught.value
    shown = f"{error} {error!r} {error.args} {error.__cause__!r}"
    assert "HIDDEN" not in shown
    assert error.__cause__ is None


def test_a_store_is_wrapped_in_retry_around_limits_around_adaption_around_tracing() -> None:
    tally = Tally()
    store = open_store("memory://layers", Settings(parallel=3, retry_deadline=7), tally=tally)
    assert isinstance(store, RetryStore)
    assert isinstance(store.inner, LimitStore)
    assert isinstance(store.inner.inner, AdaptiveStore)
    assert isinstance(store.inner.inner.inner, TraceStore)
    assert store._backoff.deadline == 7
    store.put("a", b"x")
    assert tally.snapshot()["put"].requests == 1


def test_openers_of_one_memory_address_meet() -> None:
    open_store("memory://meeting").put("a", b"x")
    assert bytes(open_store("memory://meeting").get("a")) == b"x"
    assert open_store("memory://elsewhere").head("a") is None


def test_a_directory_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no repository at .*: there is no such folder.*\n.*mount"):
        open_store(str(tmp_path / "new"))
    open_store(str(tmp_path / "new" / "deep"), create=True).put("a", b"x")
    assert bytes(open_store(str(tmp_path / "new" / "deep")).get("a")) == b"x"


def test_an_s3_address_opens_its_place_and_no_other(s3_endpoint: Server) -> None:
    one, other = s3_endpoint.address("one"), s3_endpoint.address("one-more")
    open_store(one).put("a", b"x")
    assert open_store(other).head("a") is None
    assert [info.key for info in open_store(one).list("")] == ["a"]
    open_store(one).delete_many(["a"])


def test_racing_creators_through_all_layers(address: str) -> None:
    won: list[int] = []
    start = threading.Barrier(4)

    def create(racer: int) -> None:
        store = open_store(address)
        start.wait(timeout=30)
        try:
            store.put("manifests/1", b"%d" % racer, create=True)
        except AlreadyExists:
            return
        won.append(racer)

    threads = [threading.Thread(target=create, args=(racer,)) for racer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert bytes(open_store(address).get("manifests/1")) == b"%d" % won[0]
