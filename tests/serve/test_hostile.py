"""A client that breaks the protocol is cut off; others, the server and its disk do not suffer."""

from __future__ import annotations

import random
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transfer.support import Workbench

from pipeline.errors import TargetBusy, UsageError
from pipeline.nbd import protocol as p
from serve.tools import SIZE, client_of, content, link_to, listening, read

HELLO = struct.pack(">I", p.FIXED_NEWSTYLE | p.NO_ZEROES)
GO = p.OPTION.pack(p.IHAVEOPT, p.Option.EXPORT_NAME, 0)
"""With NO_ZEROES and the empty name: transmission begins."""


def option(number: int, data: bytes, *, length: int | None = None) -> bytes:
    return p.OPTION.pack(p.IHAVEOPT, number, len(data) if length is None else length) + data


def request(command: int, offset: int, length: int, *, magic: int = p.REQUEST_MAGIC) -> bytes:
    return p.REQUEST.pack(magic, 0, command, 1, offset, length)


def closed(link: socket.socket) -> bool:
    """The server hangs up (within the time limit of the link)."""
    try:
        while link.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def still_good(uri: str) -> None:
    client = client_of(uri, connections=1)
    assert read(client, 0, SIZE) == content()
    client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        struct.pack(">I", 0xFFFF),
        HELLO + b"X" * 16,
        HELLO + option(p.Option.GO, b"", length=0xFFFFFFFF),
        HELLO + option(p.Option.EXPORT_NAME, b"nothing here"),
        HELLO + option(p.Option.ABORT, b""),
        HELLO + option(77, b"?") * 300,
        HELLO + GO + request(p.Command.READ, 0, 512, magic=0xDEADBEEF),
        HELLO + GO + request(p.Command.WRITE, 0, 0xFFFFFFFF),
        HELLO + GO + request(p.Command.DISC, 0, 0),
    ],
)
def test_it_is_cut_off_at_once(bench: Workbench, said: bytes) -> None:
    with listening(bench) as (_instant, uri):
        with link_to(uri) as link:
            link.sendall(said)
            assert closed(link)
        still_good(uri)


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (p.Option.GO, b""),
        (p.Option.GO, struct.pack(">I", 1 << 31) + b"x"),
        (p.Option.GO, struct.pack(">IH", 0, 900)),
        (p.Option.LIST, b"x"),
        (p.Option.STRUCTURED_REPLY, b"x"),
        (p.Option.SET_META_CONTEXT, struct.pack(">II", 0, 0)),  # before structured replies
        (p.Option.LIST_META_CONTEXT, struct.pack(">II", 0, 3)),
        (p.Option.LIST_META_CONTEXT, struct.pack(">III", 0, 1, 1 << 30)),
    ],
)
def test_senseless_options_are_refused_and_the_handshake_goes_on(bench: Workbench, number: int, data: bytes) -> None:
    with listening(bench) as (_instant, uri), link_to(uri) as link:
        link.recv(18, socket.MSG_WAITALL)
        link.sendall(HELLO + option(number, data))
        _magic, about, kind, length = p.OPTION_REPLY.unpack(link.recv(20, socket.MSG_WAITALL))
        assert (about, kind, length) == (number, p.REP_ERR_INVALID, 0)
        link.sendall(GO)
        assert struct.unpack(">Q", link.recv(10, socket.MSG_WAITALL)[:8])[0] == SIZE


def test_a_client_that_leaves_in_the_middle_of_a_write_changes_nothing(bench: Workbench) -> None:
    with listening(bench) as (instant, uri):
        with link_to(uri) as link:
            link.recv(18, socket.MSG_WAITALL)
            link.sendall(HELLO + GO)
            link.recv(10, socket.MSG_WAITALL)
            link.sendall(request(p.Command.WRITE, 0, 1 << 20) + b"x" * 4096)
        still_good(uri)
        assert instant.server._budget._taken == 0


def test_a_client_that_takes_no_answers_holds_up_nobody(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri), link_to(uri) as link:
        link.sendall(HELLO + GO + request(p.Command.READ, 0, 1 << 20) * 50)
        still_good(uri)


def test_more_clients_than_places_are_turned_away(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.serve.server.MAX_CLIENTS", 2)
    with listening(bench) as (_instant, uri):
        first, second = link_to(uri), link_to(uri)
        assert len(first.recv(18, socket.MSG_WAITALL)) == len(second.recv(18, socket.MSG_WAITALL)) == 18
        with link_to(uri) as third:
            assert third.recv(18, socket.MSG_WAITALL) == b""
        first.close()
        second.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), start=st.sampled_from([b"", HELLO, HELLO + GO]), length=st.integers(0, 400))
def test_noise_is_survived(shared: str, seed: int, start: bytes, length: int) -> None:
    with link_to(shared) as link:
        link.sendall(start + random.Random(seed).randbytes(length))
        link.shutdown(socket.SHUT_WR)
        assert closed(link)


@pytest.fixture
def shared(bench: Workbench) -> object:
    with listening(bench) as (_instant, uri):
        yield uri
        still_good(uri)
        assert not [t for t in threading.enumerate() if t.name == "client" and not t.daemon]


def test_a_socket_in_use_or_a_file_in_its_place_is_refused(bench: Workbench, tmp_path: Path) -> None:
    with listening(bench) as (instant, uri):
        path = Path(uri.partition("socket=")[2])
        with pytest.raises(TargetBusy, match="another server answers"):
            instant.server.listen(path)
        (path.parent / "file").write_text("precious")
        with pytest.raises(UsageError, match="is no socket"):
            instant.server.listen(path.parent / "file")
        with pytest.raises(UsageError, match="too long for a socket"):
            instant.server.listen(Path("/" + "x" * 120))
        assert (path.parent / "file").read_text() == "precious"
        still_good(uri)
