"""Over https: only a server whose authority is trusted, and payloads that TLS protects are not hashed again."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import issue

from pipeline.errors import StoreError, UsageError
from pipeline.store.address import S3Address
from pipeline.store.credentials import Credentials
from pipeline.store.s3 import S3Store, addressing
from store.scripted_s3 import ScriptedS3, scripted_s3

KEYS = Credentials("AKID", "secret")


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[ScriptedS3, Path]]:
    ca, certificate = issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with scripted_s3(context) as server:
        yield server, ca


def test_a_private_authority_is_trusted_when_named(secure: tuple[ScriptedS3, Path]) -> None:
    server, ca = secure
    store = S3Store(S3Address("bucket", "", server.endpoint, ca=str(ca)), credentials=KEYS)
    store.put("a", b"x")
    assert bytes(store.get("a")) == b"x"
    assert server.requests[0].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


def test_an_unknown_authority_is_refused_at_once(secure: tuple[ScriptedS3, Path]) -> None:
    server, _ = secure
    store = S3Store(S3Address("bucket", "", server.endpoint), credentials=KEYS)
    with pytest.raises(StoreError, match=r"certificate is not trusted") as caught:
        store.put("a", b"x")
    assert not caught.value.transient
    assert "ca=" in caught.value.remedy


def test_a_ca_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the CA file .*nowhere.pem"):
        S3Store(S3Address("bucket", "", "https://127.0.0.1:1", ca=str(tmp_path / "nowhere.pem")), credentials=KEYS)


def test_a_ca_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("not a certificate")
    with pytest.raises(UsageError, match=r"empty.pem"):
        S3Store(S3Address("bucket", "", "https://127.0.0.1:1", ca=str(empty)), credentials=KEYS)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (S3Address("bucket"), (True, "https://bucket.s3.eu-west-1.amazonaws.com")),
        (S3Address("dotted.bucket"), (False, "https://s3.eu-west-1.amazonaws.com")),
        (S3Address("bucket", path_style=True), (False, "https://s3.eu-west-1.amazonaws.com")),
        (S3Address("bucket", endpoint="https://host:9000/"), (False, "https://host:9000")),
        (S3Address("bucket", endpoint="http://host", path_style=False), (True, "http://bucket.host")),
    ],
)
def test_a_bucket_is_addressed_by_path_or_by_host(address: S3Address, expected: tuple[bool, str]) -> None:
    assert addressing(address, "eu-west-1") == expected
