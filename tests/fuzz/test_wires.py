"""Whoever is at the other end of a connection: what it sends is an answer or a typed error, soon, in little memory."""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from simulators.subject import FakeSubject

from fuzz.mutate import bounded, fuzz, mutated
from importers.qemu.arguments import QMP_SOCKET
from importers.qemu.jsonsocket import Gone, JsonSocket
from importers.qemu.qmp import Qmp, QmpError, QmpGone
from pipeline.nbd import protocol as p
from pipeline.nbd.client import NbdClient
from pipeline.nbd.wire import Wire
from pipeline.serve.handshake import Export, Rejected, welcome
from pipeline.target import Endpoint
from pipeline.verify.hook import Attempt
from pipeline.verify.hooks.http import HttpHook, HttpSettings

SIZE = 4096
STATUS = p.MAX_STATUS_REPLY * 3
"""A server may announce that much of block status (kept twice while it is copied)."""


def saying(data: bytes) -> socket.socket:
    """A connection to somebody who says this, whatever he is asked, and no more. It must fit into the socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        # Kept open for what we say, until `ours` is closed: the kernel's buffer takes it.
        threading.Thread(target=_drain, args=(theirs.dup(),), daemon=True).start()
    return ours


def _drain(link: socket.socket) -> None:
    with link, contextlib.suppress(OSError):
        while link.recv(65536):
            pass


# -- NBD ---------------------------------------------------------------------------------------------------------------


def _reply(option: p.Option, kind: int, body: bytes = b"") -> bytes:
    return p.OPTION_REPLY.pack(p.OPTION_REPLY_MAGIC, option, kind, len(body)) + body


def _chunk(cookie: int, kind: int, body: bytes) -> bytes:
    return struct.pack(">IHHQI", p.STRUCTURED_REPLY_MAGIC, p.REPLY_DONE, kind, cookie, len(body)) + body


_GREETING = p.NBDMAGIC + p.IHAVEOPT + struct.pack(">H", 3)
_CONTEXT = struct.pack(">I", 1) + b"base:allocation"
_GO = (
    _reply(p.Option.GO, p.REP_INFO, struct.pack(">HQH", p.INFO_EXPORT, SIZE, 1 | 1 << 2 | 1 << 6))
    + _reply(p.Option.GO, p.REP_INFO, struct.pack(">HIII", p.INFO_BLOCK_SIZE, 1, 4096, 1 << 25))
    + _reply(p.Option.GO, p.REP_ACK)
)
STRUCTURED = (
    _GREETING
    + _reply(p.Option.STRUCTURED_REPLY, p.REP_ACK)
    + _reply(p.Option.LIST_META_CONTEXT, p.REP_META_CONTEXT, _CONTEXT)
    + _reply(p.Option.LIST_META_CONTEXT, p.REP_ACK)
    + _reply(p.Option.SET_META_CONTEXT, p.REP_META_CONTEXT, _CONTEXT)
    + _reply(p.Option.SET_META_CONTEXT, p.REP_ACK)
    + _GO
)
SIMPLE = _GREETING + _reply(p.Option.STRUCTURED_REPLY, p.REP_ERR_UNSUP) + _GO
SERVERS = [
    STRUCTURED
    + _chunk(1, p.Chunk.OFFSET_DATA, struct.pack(">Q", 0) + b"x" * SIZE)
    + _chunk(2, p.Chunk.BLOCK_STATUS, struct.pack(">IIIII", 1, 1024, 0, SIZE - 1024, 3)),
    STRUCTURED
    + _chunk(1, p.Chunk.OFFSET_HOLE, struct.pack(">QI", 0, SIZE))
    + _chunk(2, p.Chunk.ERROR_OFFSET, struct.pack(">IH", 5, 4) + b"oops" + struct.pack(">Q", 7)),
    SIMPLE + p.SIMPLE_REPLY.pack(p.SIMPLE_REPLY_MAGIC, 0, 1) + b"y" * SIZE,
    _GREETING[:-2] + struct.pack(">H", 1),
]


@pytest.mark.parametrize("sound", range(len(SERVERS)))
def test_what_the_damaged_servers_are_made_of_is_understood(sound: int) -> None:
    ours = saying(SERVERS[sound])
    with contextlib.suppress(p.NbdLost) if sound == 3 else contextlib.nullcontext():
        client = NbdClient(lambda: ours, "x", connections=1, timeout=5)
        buffer = memoryview(bytearray(SIZE))
        client.read(0, buffer)
        assert set(bytes(buffer)) == {(b"x", b"\0", b"y")[sound][0]}


@given(data=mutated(SERVERS))
@fuzz(300)
def test_nbd_servers(data: bytes) -> None:
    ours = saying(data)
    try:
        with bounded(len(data), limit=STATUS), contextlib.suppress(p.NbdError, p.NbdRefused, p.NbdLost):
            client = NbdClient(lambda: ours, "x", connections=1, timeout=5)
            buffer = memoryview(bytearray(min(client.size, SIZE)))
            with contextlib.suppress(p.NbdError):
                client.read(0, buffer)
            if "base:allocation" in client.terms.contexts and client.size:
                with client._connection() as connection:
                    connection.block_status(client.terms.contexts["base:allocation"], 0, min(client.size, SIZE))
    finally:
        ours.close()


EXPORT = Export("vm", "", SIZE, p.Flag.HAS_FLAGS, 4096, 1 << 25)


def _option(number: int, data: bytes = b"") -> bytes:
    return p.OPTION.pack(p.IHAVEOPT, number, len(data)) + data


_NAME = struct.pack(">I", 2) + b"vm"
CLIENTS = [
    struct.pack(">I", 3) + _option(p.Option.STRUCTURED_REPLY) + _option(p.Option.LIST)
    + _option(p.Option.SET_META_CONTEXT, _NAME + struct.pack(">II", 1, 15) + b"base:allocation")
    + _option(p.Option.GO, _NAME + struct.pack(">HH", 1, p.INFO_BLOCK_SIZE)),
    struct.pack(">I", 1) + _option(p.Option.LIST_META_CONTEXT, _NAME + struct.pack(">I", 0))
    + _option(p.Option.EXPORT_NAME, b"vm"),
]  # fmt: skip


@given(data=mutated(CLIENTS))
@fuzz(300)
def test_nbd_clients(data: bytes) -> None:
    ours = saying(data)
    try:
        with bounded(len(data)), contextlib.suppress(Rejected, p.NbdLost):
            welcome(Wire(ours, 5), EXPORT)
    finally:
        ours.close()


# -- QMP and the guest's agent -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(name: str, data: bytes) -> Iterator[Path]:
    """A Unix socket `name` in a folder, where one client is told `data`."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/{name}")
        listener.listen(1)
        answering = threading.Thread(target=_answer, args=(listener, data), daemon=True)
        answering.start()
        yield Path(folder)
        answering.join()


def _answer(listener: socket.socket, data: bytes) -> None:
    link, _address = listener.accept()
    with link, contextlib.suppress(OSError):
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        while link.recv(65536):
            pass


TALK = [
    b'{"QMP": {"version": {}, "capabilities": []}}\n{"return": {}}\n{"event": "STOP"}\n{"return": {"running": true}}\n',
    b'\xff{"return": 7}\n{"error": {"class": "GenericError", "desc": "no"}}\n',
    b'{"QMP": []}\n{"error": null}\n',
]


@given(data=mutated(TALK))
@example(data=b"[" * 100_000 + b"\n")
@example(data=b"1" * 5_000 + b"\n")
@fuzz(100)
def test_documents_of_a_json_socket(data: bytes) -> None:
    with (
        listening("s", data) as folder,
        bounded(len(data)),
        contextlib.suppress(Gone),
        JsonSocket(folder, "s", seconds=10) as link,
    ):
        while True:
            assert isinstance(link.receive(), dict)


@given(data=mutated(TALK))
@fuzz(100)
def test_qmp(data: bytes) -> None:
    with (
        listening(QMP_SOCKET, data) as folder,
        bounded(len(data)),
        contextlib.suppress(QmpError, QmpGone),
        Qmp(folder, seconds=10) as qmp,
    ):
        qmp.execute("query-status")


# -- web servers -------------------------------------------------------------------------------------------------------

PAGES = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 5\r\n\r\nready",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
]


@given(data=mutated(PAGES))
@example(data=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nready\r\n")
@example(data=b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx")
@example(data=b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx")
@example(data=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nx")
@example(data=b"HTTP/1.1 200 OK\r\nLocation: \xff\xfe\r\n\r\n")
@fuzz(150)
def test_web_servers(tmp_path: Path, data: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answer, args=(listener, data), daemon=True)
        answering.start()
        endpoint = Endpoint("127.0.0.1", listener.getsockname()[1])
        subject = FakeSubject(tmp_path, endpoints={80: endpoint})
        hook = HttpHook(HttpSettings(port=80, text="ready", headers={"content-type": "html"}))
        with bounded(len(data), limit=8 << 20):
            outcome = hook.look(subject, Attempt("web", 1, 5.0))
        assert isinstance(outcome.seen, str)
        answering.join()
