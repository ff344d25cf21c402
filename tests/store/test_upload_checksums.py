"""Uploads over plain http: what the signature covers, and what becomes of bytes that are damaged on the way."""

from __future__ import annotations

import pytest
from servers import Server
from simulators.s3_proxy import proxied

from manifests.names import NAMED_BY_CONTENT, pack_key, page_key
from pipeline.errors import NotFound, StoreUnavailable
from pipeline.repository import Repository
from pipeline.store.address import S3Address, parse_address
from pipeline.store.s3 import S3Store
from store.scripted_s3 import Request

UNSIGNED = "UNSIGNED-PAYLOAD"


def open_s3(server: Server) -> S3Store:
    location = parse_address(server.address())
    assert isinstance(location, S3Address)
    return S3Store(location)


def test_a_server_that_refuses_a_wrong_checksum_is_seen_to(s3_endpoint: Server) -> None:
    store = open_s3(s3_endpoint)
    assert store.probe().checksum_headers
    assert list(store.list("probe/")) == []
    store.close()


def test_only_what_is_named_by_its_hash_goes_without_a_signed_payload(minio_endpoint: Server) -> None:
    sent: dict[str, Request] = {}
    with proxied(minio_endpoint) as (server, line):
        store = open_s3(server)
        line.script = lambda request: sent.update({request.path.rpartition("/")[2]: request})  # type: ignore[func-returns-value]
        pack, page = pack_key(b"\1" * 32), page_key(b"\2" * 32)
        store.put(pack, b"before it is said to be so")
        assert sent[pack.rpartition("/")[2]].headers["x-amz-content-sha256"] != UNSIGNED
        store.trust_names(NAMED_BY_CONTENT)
        for key in (pack, page, "manifests/web/1", "packsandmore"):
            store.put(key, b"bytes")
        store.close()
    for key in (pack, page):
        headers = sent[key.rpartition("/")[2]].headers
        assert headers["x-amz-content-sha256"] == UNSIGNED
        assert "x-amz-checksum-crc64nvme" in headers["authorization"], "the signature covers the checksum"
    for key in ("1", "packsandmore"):
        assert sent[key].headers["x-amz-content-sha256"] not in ("", UNSIGNED)


def test_a_pack_damaged_on_the_way_is_not_stored_and_may_be_sent_again(minio_endpoint: Server) -> None:
    def damage(request: Request) -> None:
        if request.method == "PUT":
            request.body = bytes([request.body[0] ^ 1]) + request.body[1:]

    with proxied(minio_endpoint) as (server, line):
        store = open_s3(server)
        store.trust_names(NAMED_BY_CONTENT)
        key = pack_key(b"\3" * 32)
        line.script = damage
        with pytest.raises(StoreUnavailable):
            store.put(key, b"bytes of a pack")
        with pytest.raises(NotFound):
            store.get(key)
        line.script = lambda _request: None
        store.put(key, b"bytes of a pack")
        assert bytes(store.get(key)) == b"bytes of a pack"
        store.close()


@pytest.mark.parametrize("compared", [True, False])
def test_a_repository_says_so_only_where_checksums_were_seen_to_be_compared(
    minio_endpoint: Server, compared: bool
) -> None:
    sent: list[Request] = []
    with proxied(minio_endpoint) as (server, line):
        store = open_s3(server)
        made = Repository.init(store)
        made.document.abilities["checksum_headers"] = compared
        opened = S3Store(store.location)
        repository = Repository(opened, made.document)
        line.script = lambda request: sent.append(request)  # type: ignore[func-returns-value]
        repository.store.put(pack_key(b"\4" * 32), b"bytes")
        opened.close()
        store.close()
    assert (sent[0].headers["x-amz-content-sha256"] == UNSIGNED) is compared
