"""What each answer of a server, and each missing one, means; checked against a server that answers to order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from pipeline.errors import (
    AccessDenied,
    AlreadyExists,
    CorruptObject,
    NotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pipeline.store.address import S3Address
from pipeline.store.base import Store
from pipeline.store.credentials import Credentials
from pipeline.store.retry import Backoff, RetryStore
from pipeline.store.s3 import S3Store, Timeouts
from store.scripted_s3 import Answer, Request, ScriptedS3, scripted_s3

SECRET = "s3cr3t-Never-Shown"
TOKEN = "t0ken-Never-Shown"


@pytest.fixture
def server() -> Iterator[ScriptedS3]:
    with scripted_s3() as running:
        yield running


PATIENT = Timeouts(connect=60, request=60, stall=60)
"""For answers that come, however slow this machine is at the moment: none of them may pass for silence."""
HASTY = Timeouts(connect=60, request=0.5, stall=0.3)
"""For answers that never come."""


def opened(server: ScriptedS3, timeouts: Timeouts) -> S3Store:
    address = S3Address("bucket", "home/", server.endpoint)
    return S3Store(address, credentials=Credentials("AKID", SECRET, TOKEN), timeouts=timeouts)


@pytest.fixture
def s3(server: ScriptedS3) -> Iterator[S3Store]:
    store = opened(server, PATIENT)
    yield store
    store.close()


@pytest.fixture
def hasty(server: ScriptedS3) -> Iterator[S3Store]:
    store = opened(server, HASTY)
    yield store
    store.close()


VERBS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("a/key", b"x"),
    "create": lambda store: store.put("a/key", b"x", create=True),
    "get": lambda store: store.get("a/key"),
    "get_range": lambda store: store.get_range("a/key", 0, 1),
    "head": lambda store: store.head("a/key"),
    "list": lambda store: list(store.list("a/key/")),
    "delete": lambda store: store.delete_many(["a/key"]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (Answer(500, "InternalError"), StoreUnavailable, "health"),
        (Answer(502, body=b"<html>proxy</html>"), StoreUnavailable, "health"),
        (Answer(503, "SlowDown"), StoreUnavailable, "slow down"),
        (Answer(429, "TooManyRequests"), StoreUnavailable, "slow down"),
        (Answer(400, "RequestTimeout"), StoreUnavailable, "health"),
        (Answer(400, "BadDigest"), StoreUnavailable, "health"),
        (Answer(409, "OperationAborted"), StoreUnavailable, "health"),
        (Answer(409, "ConditionalRequestConflict"), StoreUnavailable, "health"),
        (Answer(cut=True), StoreUnavailable, "cut"),
        (Answer(hang=120), StoreUnavailable, "no answer in time"),
        (Answer(403, "AccessDenied"), AccessDenied, "right to"),
        (Answer(403, "InvalidAccessKeyId"), AccessDenied, "access key"),
        (Answer(403, "SignatureDoesNotMatch"), AccessDenied, "access key"),
        (Answer(403, "RequestTimeTooSkewed"), AccessDenied, "clock"),
        (Answer(400, "ExpiredToken"), AccessDenied, "expired"),
        (Answer(401, "Unauthorized"), AccessDenied, "right to"),
        (Answer(507, "XMinioStorageFull"), StoreFull, "free space"),
        (Answer(403, "QuotaExceeded"), StoreFull, "quota"),
        (Answer(404, "NoSuchBucket"), StoreError, "create the bucket"),
        (Answer(404, body=b"<html>nothing here</html>"), StoreError, "proxy"),
        (Answer(301, "PermanentRedirect"), StoreError, "region="),
        (Answer(400, "AuthorizationHeaderMalformed"), StoreError, "region="),
        (Answer(400, "InvalidRequest"), StoreError, "refuses"),
        (Answer(501, "NotImplemented"), StoreError, ""),
    ],
    ids=lambda value: f"{value.status}-{value.code or 'none'}-{value.cut}" if isinstance(value, Answer) else None,
)
def test_an_answer_becomes_its_error(
    server: ScriptedS3,
    s3: S3Store,
    hasty: S3Store,
    verb: str,
    answer: Answer,
    expected: type[StoreError],
    says: str,
) -> None:
    server.answer_always(answer)
    with pytest.raises(StoreError) as caught:
        VERBS[verb](hasty if answer.hang else s3)
    error = caught.value
    text = str(error)
    if verb == "head" and answer.status < 500 and answer.code:
        # HEAD has no body: the status alone cannot tell these apart.
        assert not isinstance(error, NotFound)
    else:
        assert type(error) is expected
        assert says in text
    assert error.remedy
    assert "bucket" in text
    assert "a/key" in text or "home" in text
    for secret in (SECRET, TOKEN):
        assert secret not in text
        assert secret not in repr(error)
    listing = answer.code == "AccessDenied"  # absent, or forbidden?
    assert len(server.requests) <= 2 + listing, "nothing is tried again below the retry layer"


@pytest.mark.parametrize("error", [412, 409])
def test_a_create_that_lost_already_exists(server: ScriptedS3, s3: S3Store, error: int) -> None:
    server.answer_always(Answer(error, "PreconditionFailed" if error == 412 else "FileAlreadyExists"))
    with pytest.raises(AlreadyExists, match=r"a/key already exists in s3://bucket/home"):
        s3.put("a/key", b"x", create=True)


def test_a_create_asks_the_server_to_refuse_an_existing_object(server: ScriptedS3, s3: S3Store) -> None:
    s3.put("a", b"x", create=True)
    s3.put("a", b"y")
    assert [request.headers.get("if-none-match") for request in server.requests] == ["*", None]


def test_one_put_is_one_request(server: ScriptedS3, s3: S3Store) -> None:
    data = bytes(9 << 20)
    slow = S3Store(s3.location, credentials=Credentials("AKID", SECRET))
    slow.put("a", data)
    assert [request.method for request in server.requests] == ["PUT"]
    assert server.objects == {"home/a": data}


def test_absent_is_only_what_the_store_says_is_absent(server: ScriptedS3, s3: S3Store) -> None:
    assert s3.head("a/key") is None
    assert [request.method for request in server.requests] == ["HEAD", "GET"]
    with pytest.raises(NotFound):
        s3.get("a/key")


def test_a_head_that_is_refused_says_why(server: ScriptedS3, s3: S3Store) -> None:
    """The refusal of a HEAD has no body: a GET tells a wrong clock from a missing right."""
    server.answer_always(Answer(403, "RequestTimeTooSkewed", "the server&#39;s time"))
    with pytest.raises(AccessDenied, match="the server's time") as caught:
        s3.head("a/key")
    assert "clock" in caught.value.remedy


def test_a_head_of_a_missing_bucket_is_an_error_and_not_absence(server: ScriptedS3, s3: S3Store) -> None:
    server.answer_always(Answer(404, "NoSuchBucket"))
    with pytest.raises(StoreError, match="bucket bucket does not exist") as caught:
        s3.head("a/key")
    assert not isinstance(caught.value, NotFound)


def test_an_object_created_while_head_asks_again_is_seen(server: ScriptedS3, s3: S3Store) -> None:
    def script(request: Request) -> Answer | None:
        if request.method == "HEAD" and len(server.requests) == 1:
            return Answer(404)
        return None

    server.script = script
    server.objects["home/a"] = b"12345"
    info = s3.head("a")
    assert info is not None
    assert info.size == 5


def test_an_empty_object_created_while_head_asks_again_is_seen(server: ScriptedS3, s3: S3Store) -> None:
    server.script = lambda request: Answer(404) if len(server.requests) == 1 else None
    server.objects["home/a"] = b""
    info = s3.head("a")
    assert info is not None
    assert info.size == 0


def test_a_body_that_is_cut_is_an_error(server: ScriptedS3, s3: S3Store) -> None:
    server.objects["home/a"] = bytes(100_000)
    server.script = lambda request: Answer(
        body=bytes(100_000), short=50_000, headers={"last-modified": "Mon, 23 Nov 2026 09:00:00 GMT", "etag": '"1"'}
    )
    with pytest.raises(StoreUnavailable):
        s3.get("a")
    assert len(server.requests) == 1


def test_a_server_that_ignores_a_range_is_not_believed(server: ScriptedS3, s3: S3Store) -> None:
    server.objects["home/a"] = bytes(range(100))
    server.ranges = False
    with pytest.raises((StoreError, CorruptObject)):
        s3.get_range("a", 10, 5)


def test_a_range_that_came_short_is_a_corrupt_object(server: ScriptedS3, s3: S3Store) -> None:
    server.answer_always(
        Answer(
            206,
            body=b"12345",
            headers={
                "content-range": "bytes 95-99/100",
                "last-modified": "Mon, 23 Nov 2026 09:00:00 GMT",
                "etag": '"1"',
            },
        )
    )
    with pytest.raises(CorruptObject, match="too short"):
        s3.get_range("a", 95, 10)


def test_silence_ends_at_the_timeout(server: ScriptedS3, hasty: S3Store) -> None:
    server.answer_always(Answer(hang=120))
    for verb in ("put", "get"):
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            VERBS[verb](hasty)
        assert time.monotonic() - start < 60


def test_nobody_listening_is_unavailable(unused_port: int) -> None:
    s3 = S3Store(S3Address("bucket", "", f"http://127.0.0.1:{unused_port}"), credentials=Credentials("AKID", SECRET))
    with pytest.raises(StoreUnavailable, match="no connection"):
        s3.get("a")


def test_a_key_that_could_not_be_deleted_is_an_error(server: ScriptedS3, s3: S3Store) -> None:
    body = (
        b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Deleted><Key>home/a</Key></Deleted>'
        b"<Error><Key>home/b</Key><Code>AccessDenied</Code><Message>locked</Message></Error></DeleteResult>"
    )
    server.answer_always(Answer(body=body))
    with pytest.raises(AccessDenied, match="cannot delete b in s3://bucket/home"):
        s3.delete_many(["a", "b"])


def test_a_server_without_multi_delete_gets_one_request_for_each_key(server: ScriptedS3, s3: S3Store) -> None:
    server.script = lambda request: Answer(501, "NotImplemented") if request.method == "POST" else Answer(204)
    s3.delete_many(["a", "b"])
    s3.delete_many(["c"])
    methods = [request.method for request in server.requests]
    assert methods == ["POST", "DELETE", "DELETE", "DELETE"]


def page(*keys: str, more: str = "") -> Answer:
    contents = "".join(
        f"<Contents><Key>home/{key}</Key><LastModified>2026-11-23T09:00:00.000Z</LastModified><ETag>x</ETag>"
        f"<Size>{0 if key.endswith('/') else 1}</Size></Contents>"
        for key in keys
    )
    following = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    truncated = "true" if more else "false"
    return Answer(
        body=f"<ListBucketResult><Name>bucket</Name><IsTruncated>{truncated}</IsTruncated>{contents}{following}"
        "</ListBucketResult>".encode()
    )


def test_a_listing_that_fails_on_its_second_page_is_an_error(server: ScriptedS3, s3: S3Store) -> None:
    server.script = lambda request: (
        Answer(500, "InternalError") if "continuation-token" in request.query else page("a", "b", more="next")
    )
    seen: list[str] = []
    with pytest.raises(StoreUnavailable):
        seen.extend(info.key for info in s3.list(""))


def test_a_listing_is_resumed_by_the_retry_layer(server: ScriptedS3, s3: S3Store) -> None:
    keys = [f"{number:03d}" for number in range(250)]

    def script(request: Request) -> Answer:
        (after,) = request.query.get("start-after", [""])
        if after:
            return page(*(key for key in keys if f"home/{key}" > after))
        return Answer(500, "InternalError") if "continuation-token" in request.query else page(*keys[:130], more="next")

    server.script = script
    store = RetryStore(s3, Backoff(deadline=5, sleep=lambda _: None))
    assert [info.key for info in store.list("")] == keys
    assert server.requests[-1].query["start-after"] == ["home/099"]


def test_a_listing_out_of_order_is_refused(server: ScriptedS3, s3: S3Store) -> None:
    server.answer_always(page("a", "c", "b"))
    with pytest.raises(StoreError, match="not in key order"):
        list(s3.list(""))


def test_foreign_objects_are_ignored(server: ScriptedS3, s3: S3Store) -> None:
    server.answer_always(page(".hidden", "a", "b c", "d"))
    assert [info.key for info in s3.list("")] == ["a", "d"]


def test_a_folder_object_of_a_console_does_not_break_a_listing(server: ScriptedS3, s3: S3Store) -> None:
    server.answer_always(page("a-b", "a/", "a/c"))
    assert [info.key for info in s3.list("")] == ["a-b", "a/c"]


def test_a_listing_of_part_of_a_name_ends_when_it_is_over(server: ScriptedS3, s3: S3Store) -> None:
    def script(request: Request) -> Answer | None:
        if request.method == "HEAD":
            return None
        assert "continuation-token" not in request.query, "asked for a page that cannot hold the prefix"
        return page("packs/ab1", *(f"packs/b{number:03d}" for number in range(200)), more="next")

    server.script = lambda request: script(request) if "list-type" in request.query else None
    assert [info.key for info in s3.list("packs/ab")] == ["packs/ab1"]
    (listing,) = [request for request in server.requests if "list-type" in request.query]
    assert listing.query["start-after"] == ["home/packs/ab"]


def test_a_lost_answer_of_a_create_is_no_lost_race(server: ScriptedS3, s3: S3Store) -> None:
    def script(request: Request) -> Answer | None:
        return Answer(cut=True, after=True) if len(server.requests) == 1 else None

    server.script = script
    RetryStore(s3, Backoff(deadline=5, sleep=lambda _: None)).put("manifests/1", b"ours", create=True)
    assert [request.method for request in server.requests] == ["PUT", "PUT", "GET"]
    assert server.objects == {"home/manifests/1": b"ours"}


@pytest.mark.parametrize("ahead", [timedelta(hours=1), -timedelta(hours=1)])
def test_a_clock_that_is_wrong_is_measured(server: ScriptedS3, s3: S3Store, ahead: timedelta) -> None:
    from pipeline.store.probe import clock_skew

    server.clock_ahead = ahead
    assert clock_skew(s3, "probe/clock") == pytest.approx(ahead.total_seconds(), abs=2)


def test_the_secret_is_nowhere_to_be_seen(s3: S3Store) -> None:
    shown = f"{s3!r} {s3.name} {vars(s3)} {s3._credentials!r}"
    assert SECRET not in shown
    assert TOKEN not in shown


def test_payloads_are_signed_over_plain_http(server: ScriptedS3, s3: S3Store) -> None:
    s3.put("a", b"x")
    assert len(server.requests[0].headers["x-amz-content-sha256"]) == 64


def test_a_checksum_is_sent_when_asked_for(server: ScriptedS3) -> None:
    for checksum in ("sha256", "crc64nvme"):
        s3 = S3Store(
            S3Address("bucket", "", server.endpoint, checksum=checksum), credentials=Credentials("AKID", SECRET)
        )
        s3.put("a", b"x")
        assert server.requests[-1].headers[f"x-amz-checksum-{checksum}"]


def test_temporary_credentials_send_their_token(server: ScriptedS3, s3: S3Store) -> None:
    s3.put("a", b"x")
    assert server.requests[0].headers["x-amz-security-token"] == TOKEN


@pytest.fixture
def unused_port() -> int:
    from servers import free_port

    return free_port()
