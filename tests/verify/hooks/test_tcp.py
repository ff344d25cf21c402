"""tcp: only what the guest itself answers passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulators.services import closes, listening, refusing_port, says, silent
from simulators.subject import FakeSubject

from pipeline.target import Abilities
from pipeline.verify.hook import Attempt
from verify.hooks.looking import Look

SHORT = Attempt("port", 1, 0.5)


def test_a_port_that_takes_connections_and_keeps_them_passes(subject: FakeSubject, look: Look) -> None:
    with listening(silent) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look("tcp", port=80, stays=0.1)
    assert outcome.status == "passed"
    assert outcome.seen == f"127.0.0.1:{endpoint.port} (port 80) takes connections"


def test_a_banner_is_looked_for_in_what_the_service_says(subject: FakeSubject, look: Look) -> None:
    with listening(says(b"SSH-2.0-OpenSSH_9.2\r\n")) as endpoint:
        subject.endpoints[22] = endpoint
        good = look("tcp", port=22, banner="^SSH-2.0")
        bad = look("tcp", port=22, banner="^220 ", attempt=SHORT)
    assert (good.status, bad.status) == ("passed", "failed")
    assert "SSH-2.0-OpenSSH_9.2" in good.seen
    assert "says 'SSH-2.0-OpenSSH_9.2\\r\\n', expected '^220 '" in bad.seen


def test_a_banner_may_come_in_pieces_and_before_a_close(subject: FakeSubject, look: Look) -> None:
    def talk(connection: object) -> None:
        for piece in (b"22", b"0 rea", b"dy"):
            connection.sendall(piece)  # type: ignore[attr-defined]

    with listening(talk) as endpoint:
        subject.endpoints[25] = endpoint
        assert look("tcp", port=25, banner="^220 ready").status == "passed"


def test_a_refused_connection_is_named(subject: FakeSubject, look: Look) -> None:
    subject.endpoints[80] = endpoint = refusing_port()
    outcome = look("tcp", port=80)
    assert outcome.status == "failed"
    assert outcome.seen == f"connection refused by 127.0.0.1:{endpoint.port} (port 80)"
    assert not outcome.final


@pytest.mark.parametrize("banner", [None, "ready"])
def test_a_connection_that_is_closed_at_once_is_no_service(
    subject: FakeSubject, look: Look, banner: str | None
) -> None:
    with listening(closes) as endpoint:
        subject.endpoints[80] = endpoint
        outcome = look("tcp", port=80, banner=banner)
    assert outcome.status == "failed"
    assert "took the connection and closed it" in outcome.seen


def test_a_forwarder_that_takes_connections_in_the_guests_stead_proves_nothing(
    subject: FakeSubject, look: Look
) -> None:
    with listening(silent) as endpoint:
        subject.endpoints[80] = replace(endpoint, relayed=True)
        subject.taken = False
        refused = look("tcp", port=80, stays=0.1, attempt=SHORT)
        subject.taken = None
        unknown = look("tcp", port=80, stays=0.1, attempt=SHORT)
        subject.taken = True
        taken = look("tcp", port=80, stays=0.1, attempt=SHORT)
    assert [refused.status, unknown.status, taken.status] == ["failed", "failed", "passed"]
    assert "the guest has not taken one" in refused.seen
    assert "expect a banner" in unknown.seen


def test_what_comes_through_a_forwarder_is_proof(subject: FakeSubject, look: Look) -> None:
    with listening(says(b"hello")) as endpoint:
        subject.endpoints[80] = replace(endpoint, relayed=True)
        assert look("tcp", port=80, stays=0.1).status == "passed"


def test_a_port_without_a_way_is_not_applicable_only_where_there_can_be_none(subject: FakeSubject, look: Look) -> None:
    assert look("tcp", port=80).seen == "port 80 is not forwarded"
    subject.isolated = False
    assert look("tcp", port=80).status == "failed"
    subject.isolated, subject.abilities = True, Abilities(forward=False)
    assert look("tcp", port=80).status == "not applicable"
