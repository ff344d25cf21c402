"""http and https: status, body, headers, and the name in the certificate."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from certificates import issue
from simulators.services import answers, closes, listening, over_tls, refusing_port, says
from simulators.subject import FakeSubject

from pipeline.errors import UsageError
from pipeline.verify.hook import Attempt
from verify.hooks.looking import Look


def test_a_good_answer_passes_and_is_shown(subject: FakeSubject, look: Look) -> None:
    seen: list[bytes] = []
    with listening(answers("200 OK", b"all is well", seen, X_Node="home-1")) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look(
            "http", port=80, path="/health?deep=1", host="shop.example.com", text="well", regex="^all",
            headers={"x-node": "^home"}, send={"X-Asked-By": "us"},
        )  # fmt: skip
    assert outcome.status == "passed"
    assert outcome.seen == "HTTP 200 'all is well'"
    head = seen[0].decode()
    assert head.startswith("GET /health?deep=1 HTTP/1.1\r\n")
    assert "Host: shop.example.com\r\n" in head
    assert "X-Asked-By: us\r\n" in head


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "HTTP 503 'out of order' (expected 200 to 299)"),
        ({"status": [200, 204]}, "HTTP 503 'out of order' (expected 200 or 204)"),
        ({"status": 503, "text": "fine"}, "HTTP 503 'out of order' (expected 'fine' in it)"),
        ({"status": 503, "regex": "^fine"}, "HTTP 503 'out of order' (expected '^fine' in it)"),
        ({"status": 503, "headers": {"X-Node": "b"}}, "HTTP 503, header X-Node: 'a' (expected 'b')"),
        ({"status": 503, "headers": {"X-No": "b"}}, "HTTP 503, header X-No: no such header (expected 'b')"),
    ],
)
def test_a_wrong_answer_is_shown_beside_what_was_expected(
    subject: FakeSubject, look: Look, settings: dict[str, object], expected: str
) -> None:
    with listening(answers("503 Service Unavailable", b"out of order", X_Node="a")) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look("http", port=80, **settings)
    assert (outcome.status, outcome.seen) == ("failed", expected)


def test_only_the_beginning_of_a_long_answer_is_shown(subject: FakeSubject, look: Look) -> None:
    with listening(answers("500 Oops", b"x" * 5000)) as endpoint:
        subject.endpoints[80] = endpoint
        assert "x" * 200 + "...'" in look("http", port=80).seen


def test_a_redirect_is_not_followed_but_shown(subject: FakeSubject, look: Look) -> None:
    with listening(answers("302 Found", Location="https://else.where/")) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look("http", port=80)
    assert (outcome.status, outcome.seen) == (
        "failed",
        "HTTP 302 to 'https://else.where/' '' (expected 200 to 299)",
    )


def test_a_port_that_is_no_web_server_is_named(subject: FakeSubject, look: Look) -> None:
    with listening(says(b"SSH-2.0-OpenSSH\r\n")) as endpoint:
        subject.endpoints[80] = endpoint
        assert "does not speak HTTP, or broke off: BadStatusLine SSH-2.0" in look("http", port=80).seen
    with listening(closes) as endpoint:
        subject.endpoints[80] = endpoint
        assert look("http", port=80).status == "failed"
    subject.endpoints[80] = endpoint = refusing_port()
    assert look("http", port=80).seen == f"connection refused by 127.0.0.1:{endpoint.port} (port 80)"


def test_an_answer_that_drips_does_not_outlast_its_time(subject: FakeSubject, look: Look) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.02):
            connection.sendall(b"x")

    with listening(drip) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look("http", port=80, attempt=Attempt("web", 1, 0.3))
        over.set()
    assert outcome.status == "failed"
    assert "no answer in time" in outcome.seen


def test_the_certificate_bears_the_name_whatever_the_address(subject: FakeSubject, look: Look, tmp_path: Path) -> None:
    ca, certificate = issue(tmp_path, "shop.example.com")
    names: list[str | None] = []
    with listening(over_tls(answers("200 OK", b"safe"), certificate, names)) as endpoint:
        subject.endpoints[443] = endpoint
        good = look("https", host="shop.example.com", ca=str(ca))
        other = look("https", host="mail.example.com", ca=str(ca))
        unknown = look("https", host="shop.example.com")
        careless = look("https", certificate=False)
    assert (good.status, good.seen) == ("passed", "HTTP 200 'safe', certificate for shop.example.com")
    assert other.status == unknown.status == "failed"
    assert "Hostname mismatch" in other.seen
    assert "unable to get local issuer certificate" in unknown.seen
    assert careless.status == "passed"
    assert "certificate" not in careless.seen
    assert names == ["shop.example.com", "mail.example.com", "shop.example.com", None]


def test_plain_http_where_tls_is_expected_is_named(subject: FakeSubject, look: Look) -> None:
    with listening(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as endpoint:
        subject.endpoints[443] = endpoint
        outcome = look("https", certificate=False)
    assert outcome.status == "failed"
    assert f"no TLS with 127.0.0.1:{endpoint.port} (port 443): WRONG_VERSION_NUMBER" in outcome.seen


def test_a_secret_header_comes_from_the_environment_and_never_into_the_result(
    subject: FakeSubject, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    monkeypatch.setenv("SHOP_TOKEN", "Bearer s3cr3t")
    with listening(answers("200 OK", b"you sent Bearer s3cr3t", seen)) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look("http", port=80, send_secret={"Authorization": "SHOP_TOKEN"})
    assert b"Authorization: Bearer s3cr3t\r\n" in seen[0]
    assert outcome.seen == "HTTP 200 'you sent ***'"
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(UsageError, match="SHOP_TOKEN is not set"):
        look("http", port=80, send_secret={"Authorization": "SHOP_TOKEN"})
