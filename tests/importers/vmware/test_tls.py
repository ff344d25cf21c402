"""Who is believed: exactly the certificate that was pinned, or what a named authority signed."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import issue

from importers.vmware.proxy import Proxy
from importers.vmware.tls import (
    authorities_context,
    check_certificate,
    colons,
    fetch_certificate,
    pinned_context,
    trust_only,
)
from pipeline.errors import TargetMismatch, TargetUnavailable, UsageError

HERE = "127.0.0.1"


@contextmanager
def server(pem: Path) -> Iterator[int]:
    """Handshakes, and no more; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server((HERE, 0)) as listener:

        def shake_hands() -> None:
            while True:
                try:
                    plain, _where = listener.accept()
                except OSError:
                    return
                with plain:
                    try:
                        context.wrap_socket(plain, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=shake_hands)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def proxy() -> Iterator[tuple[Proxy, list[str]]]:
    """One that tunnels, and what it was asked for."""
    asked: list[str] = []
    with socket.create_server((HERE, 0)) as listener:

        def tunnel() -> None:
            while True:
                try:
                    inner, _where = listener.accept()
                except OSError:
                    return
                with inner:
                    request = b""
                    while not request.endswith(b"\r\n\r\n"):
                        request += inner.recv(4096)
                    target = request.split()[1].decode()
                    asked.append(target)
                    with socket.create_connection((HERE, int(target.rpartition(":")[2]))) as outer:
                        inner.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                        back = threading.Thread(target=relay, args=(outer, inner))
                        back.start()
                        relay(inner, outer)
                        back.join()

        thread = threading.Thread(target=tunnel)
        thread.start()
        try:
            yield Proxy(HERE, listener.getsockname()[1]), asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def relay(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def fingerprint(pem: Path, algorithm: str = "sha256") -> str:
    text = pem.read_text()
    der = ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])
    return hashlib.new(algorithm, der).hexdigest()


def test_a_pin_is_enough_for_a_certificate_that_no_authority_vouches_for(tmp_path: Path) -> None:
    _ca, pem = issue(tmp_path, "another.name.example")
    for algorithm in ("sha256", "sha1"):
        with server(pem) as port:
            context = pinned_context(HERE, port, fingerprint(pem, algorithm), Proxy())
            check_certificate(HERE, port, context, Proxy())


def test_a_pinned_certificate_may_have_ended_and_one_of_an_authority_may_not(tmp_path: Path) -> None:
    """Sites lose their clocks, and vCenters their renewals."""
    ca, pem = issue(tmp_path, days=-2)
    with server(pem) as port:
        check_certificate(HERE, port, pinned_context(HERE, port, fingerprint(pem), Proxy()), Proxy())
        with pytest.raises(TargetMismatch, match="expired"):
            check_certificate(HERE, port, authorities_context(str(ca)), Proxy())


def test_another_certificate_than_the_pinned_one_is_refused_with_the_one_that_was_seen(tmp_path: Path) -> None:
    _ca, pem = issue(tmp_path)
    with server(pem) as port, pytest.raises(TargetMismatch) as caught:
        pinned_context(HERE, port, "ab" * 32, Proxy())
    assert f"SHA256:{colons(fingerprint(pem))} was seen" in str(caught.value)
    assert "fingerprint" in caught.value.remedy


def test_a_host_that_takes_the_place_of_the_pinned_one_later_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (_ca, first), (_cb, second) = issue(tmp_path / "a"), issue(tmp_path / "b")
    text = first.read_text()
    context = trust_only(text[text.index("-----BEGIN CERTIFICATE") :])
    with server(second) as port, pytest.raises(TargetMismatch, match="not trusted"):
        check_certificate(HERE, port, context, Proxy())


def test_without_pin_or_authority_the_fingerprint_to_compare_is_shown(tmp_path: Path) -> None:
    _ca, pem = issue(tmp_path)
    with server(pem) as port, pytest.raises(TargetMismatch) as caught:
        check_certificate(HERE, port, authorities_context(""), Proxy())
    assert f'fingerprint: "SHA256:{colons(fingerprint(pem))}"' in caught.value.remedy


def test_a_private_authority_can_be_named_and_then_names_count(tmp_path: Path) -> None:
    ca, pem = issue(tmp_path)
    with server(pem) as port:
        check_certificate(HERE, port, authorities_context(str(ca)), Proxy())
        with pytest.raises(TargetMismatch, match=re.compile("hostname mismatch", re.IGNORECASE)):
            check_certificate("localhost", port, authorities_context(str(ca)), Proxy())


def test_a_file_without_authorities_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "absent.pem"):
        with pytest.raises(UsageError, match=path.name):
            authorities_context(str(path))


def test_the_proxy_is_the_way_when_it_is_named(tmp_path: Path) -> None:
    _ca, pem = issue(tmp_path)
    with server(pem) as port, proxy() as (through, asked):
        certificate = fetch_certificate("esx1.invalid", port, through)
    assert hashlib.sha256(certificate).hexdigest() == fingerprint(pem)
    assert asked == [f"esx1.invalid:{port}"]


def test_what_is_no_tls_server_or_no_server_at_all_is_told_apart() -> None:
    with socket.create_server((HERE, 0)) as listener:
        port = listener.getsockname()[1]

        def greet() -> None:
            plain, _where = listener.accept()
            with plain:
                plain.sendall(b"220 this is no TLS\r\n")
                plain.recv(4096)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(TargetUnavailable, match="does not speak TLS"):
            fetch_certificate(HERE, port, Proxy())
        thread.join()
    with pytest.raises(TargetUnavailable, match=f"{HERE}:{port} is not reached"):
        fetch_certificate(HERE, port, Proxy())
    with pytest.raises(TargetUnavailable, match=r"name of vc\.invalid is not known here"):
        fetch_certificate("vc.invalid", 443, Proxy())
