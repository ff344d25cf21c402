"""A server that breaks the protocol ends in an error at once: no wait, no huge allocation, no wrong byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.nbd import protocol as p
from pipeline.nbd.client import NbdClient

SIZE = 1024 * 1024
Script = Callable[[socket.socket, int, int, int, int], None]
"""Answers one request: (link, command, cookie, offset, length)."""


def chunk(cookie: int, kind: int, body: bytes, *, done: bool = True, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack(">IHHQI", p.STRUCTURED_REPLY_MAGIC, int(done), kind, cookie, size) + body


class FakeServer:
    """Speaks a correct handshake (but for what is set), then what the script says."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.size = SIZE
        self.blocks = (1, 4096, 32 * 1024 * 1024)
        self.option_length: int | None = None
        self.greeting = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
        self.contexts = {b"base:allocation": 1, b"qemu:dirty-bitmap:b": 2}

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._run, args=(theirs,), daemon=True).start()
        return ours

    def _run(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError, struct.error):
            link.sendall(self.greeting)
            _take(link, 4)
            while self._option(link):
                pass
            while self.script is not None:
                magic, _, command, cookie, offset, length = p.REQUEST.unpack(_take(link, p.REQUEST.size))
                assert magic == p.REQUEST_MAGIC
                if command == p.Command.DISC:
                    return
                self.script(link, command, cookie, offset, length)

    def _option(self, link: socket.socket) -> bool:
        _, option, length = p.OPTION.unpack(_take(link, p.OPTION.size))
        data = _take(link, length)

        def reply(kind: int, body: bytes = b"") -> None:
            size = len(body) if self.option_length is None else self.option_length
            link.sendall(p.OPTION_REPLY.pack(p.OPTION_REPLY_MAGIC, option, kind, size) + body)

        if option == p.Option.GO:
            reply(p.REP_INFO, struct.pack(">HQH", p.INFO_EXPORT, self.size, 1 | 1 << 2 | 1 << 6))
            reply(p.REP_INFO, struct.pack(">HIII", p.INFO_BLOCK_SIZE, *self.blocks))
        elif option in (p.Option.LIST_META_CONTEXT, p.Option.SET_META_CONTEXT):
            assert data
            for name, number in self.contexts.items():
                reply(p.REP_META_CONTEXT, struct.pack(">I", number) + name)
        reply(p.REP_ACK)
        return bool(option != p.Option.GO)


def _take(link: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = link.recv(length - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


@contextlib.contextmanager
def client(server: FakeServer) -> Iterator[NbdClient]:
    opened = NbdClient(server.connect, "disk", timeout=5)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53" + bytes(136),
        b"NBDMAGICIHAVEOPT\0\0",
        b"NBDMAGIC",
        b"",
    ],
)
def test_what_is_no_server_of_our_kind_is_refused(greeting: bytes) -> None:
    server = FakeServer()
    server.greeting = greeting
    ours, theirs = socket.socketpair()
    theirs.sendall(greeting)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises((p.NbdRefused, p.NbdLost)):
        NbdClient(lambda: ours, "disk", timeout=5)
    theirs.close()


@pytest.mark.parametrize("blocks", [(0, 1, 1), (3, 4096, 65_536), (1 << 20, 1 << 20, 1 << 20), (4096, 4096, 512)])
def test_block_sizes_without_sense_are_refused(blocks: tuple[int, int, int]) -> None:
    server = FakeServer()
    server.blocks = blocks
    with pytest.raises(p.NbdRefused, match="block sizes"):
        NbdClient(server.connect, "disk", timeout=5)


def test_a_size_without_sense_is_refused() -> None:
    server = FakeServer()
    server.size = 1 << 63
    with pytest.raises(p.NbdRefused, match="size"):
        NbdClient(server.connect, "disk", timeout=5)


def test_a_huge_option_reply_is_refused() -> None:
    server = FakeServer()
    server.option_length = 0xFFFF_FFFF
    with pytest.raises(p.NbdLost, match="4294967295 bytes"):
        NbdClient(server.connect, "disk", timeout=5)


DATA = struct.pack(">Q", 4096)
BAD_READS: dict[str, Callable[[int], bytes]] = {
    "data before the request": lambda c: chunk(c, 1, struct.pack(">Q", 4095) + bytes(512)),
    "data past the request": lambda c: chunk(c, 1, DATA + bytes(513)),
    "too little data": lambda c: chunk(c, 1, DATA + bytes(511)),
    "no data": lambda c: chunk(c, 0, b""),
    "data twice": lambda c: chunk(c, 1, DATA + bytes(300), done=False) + chunk(c, 1, DATA + bytes(212)),
    "data without an offset": lambda c: chunk(c, 1, b"1234"),
    "a huge chunk": lambda c: chunk(c, 1, DATA, length=0xFFFF_FFFF),
    "a hole past the request": lambda c: chunk(c, 2, struct.pack(">QI", 4096, 513)),
    "a hole of 4 GiB": lambda c: chunk(c, 2, struct.pack(">QI", 4096, 0xFFFF_FFFF)),
    "a hole of a wrong layout": lambda c: chunk(c, 2, bytes(11)),
    "an empty hole": lambda c: chunk(c, 2, struct.pack(">QI", 4096, 0)),
    "another cookie": lambda c: chunk(c + 1, 1, DATA + bytes(512)),
    "an unknown chunk": lambda c: chunk(c, 77, bytes(12)),
    "a huge error": lambda c: chunk(c, p.Chunk.ERROR, b"", length=0x7FFF_FFFF),
    "an error message longer than its chunk": lambda c: chunk(c, p.Chunk.ERROR, struct.pack(">IH", 5, 999) + b"x"),
    "a simple reply": lambda c: struct.pack(">IIQ", p.SIMPLE_REPLY_MAGIC, 0, c) + bytes(512),
    "noise": lambda c: b"\xff" * 64,
    "the end": lambda c: b"",
}


@pytest.mark.parametrize("name", BAD_READS)
def test_a_wrong_answer_to_a_read_is_an_error(name: str) -> None:
    def script(link: socket.socket, command: int, cookie: int, offset: int, length: int) -> None:
        assert (command, offset, length) == (p.Command.READ, 4096, 512)
        link.sendall(BAD_READS[name](cookie))
        link.shutdown(socket.SHUT_WR)

    with client(FakeServer(script)) as opened:
        for _ in range(2):  # the connection is given up, and stays so
            with pytest.raises(p.NbdLost):
                opened.read(4096, memoryview(bytearray(512)))


def test_an_answer_in_pieces_and_out_of_order_is_put_together() -> None:
    content = bytes(range(256)) * 40

    def script(link: socket.socket, command: int, cookie: int, offset: int, length: int) -> None:
        parts = [(6000, 10_240), (0, 100), (4000, 6000), (100, 4000)]
        for number, (start, end) in enumerate(parts):
            if start == 4000:
                body = chunk(cookie, 2, struct.pack(">QI", start, end - start), done=False)
            else:
                body = chunk(cookie, 1, struct.pack(">Q", start) + content[start:end], done=number == len(parts) - 1)
            link.sendall(body)

    with client(FakeServer(script)) as opened:
        buffer = bytearray(b"\xff" * 10_240)
        opened.read(0, memoryview(buffer))
        assert buffer == content[:4000] + bytes(2000) + content[6000:10_240]


def test_an_error_at_an_offset_is_kept_and_the_connection_goes_on() -> None:
    def script(link: socket.socket, command: int, cookie: int, offset: int, length: int) -> None:
        if offset == 0:
            link.sendall(chunk(cookie, 1, struct.pack(">Q", 0) + bytes(100), done=False))
            link.sendall(chunk(cookie, p.Chunk.ERROR_OFFSET, struct.pack(">IH3sQ", 5, 3, b"bad", 100)))
        else:
            link.sendall(chunk(cookie, 1, struct.pack(">Q", offset) + b"x" * length))

    with client(FakeServer(script)) as opened:
        with pytest.raises(p.NbdError, match="bad") as caught:
            opened.read(0, memoryview(bytearray(512)))
        assert (caught.value.code, caught.value.offset) == (5, 100)
        buffer = bytearray(10)
        opened.read(600, memoryview(buffer))
        assert buffer == b"x" * 10


BAD_STATUS: dict[str, Callable[[int], bytes]] = {
    "an empty range": lambda c: chunk(c, 5, struct.pack(">III", 1, 0, 0)),
    "no range": lambda c: chunk(c, 5, struct.pack(">I", 1)),
    "no answer for the context": lambda c: chunk(c, 5, struct.pack(">III", 2, 512, 0)),
    "half a range": lambda c: chunk(c, 5, struct.pack(">IIIH", 1, 512, 0, 0)),
    "a huge answer": lambda c: chunk(c, 5, b"", length=0xFFFF_FFFC),
    "two answers": lambda c: (
        chunk(c, 5, struct.pack(">III", 1, 9, 0), done=False) + chunk(c, 5, struct.pack(">III", 1, 9, 0))
    ),
    "nothing": lambda c: chunk(c, 0, b""),
}


@pytest.mark.parametrize("name", BAD_STATUS)
def test_a_wrong_block_status_is_an_error_and_no_range_is_lost(name: str) -> None:
    def script(link: socket.socket, command: int, cookie: int, offset: int, length: int) -> None:
        link.sendall(BAD_STATUS[name](cookie))

    with client(FakeServer(script)) as opened, pytest.raises(p.NbdLost):
        list(opened.block_status("base:allocation", 0, SIZE))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_block_status_covers_everything_however_the_server_cuts_its_answers(data: st.DataObject) -> None:
    grain = data.draw(st.sampled_from([1, 512, 4096]))
    size = data.draw(st.integers(1, 300)) * grain
    dirty = data.draw(st.lists(st.booleans(), min_size=size // grain, max_size=size // grain))
    cuts = iter(data.draw(st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=400, max_size=400)))

    def script(link: socket.socket, command: int, cookie: int, offset: int, length: int) -> None:
        assert offset % grain == 0
        assert length % grain == 0
        count, beyond = next(cuts, (1 << 20, False))
        ranges: list[list[int]] = []
        stop = min(offset + count * grain, offset + length if not beyond else size, size)
        for index in range(offset // grain, stop // grain):
            ranges.append([grain, int(dirty[index])])
        other = struct.pack(">III", 1, length, 0)
        body = struct.pack(">I", 2) + b"".join(struct.pack(">II", *part) for part in ranges)
        link.sendall(chunk(cookie, 5, other, done=False) + chunk(cookie, 5, body))

    server = FakeServer(script)
    server.size = size
    server.blocks = (grain, 4096, 65_536 * grain)
    start, end = sorted((data.draw(st.integers(0, size)), data.draw(st.integers(0, size))))
    with client(server) as opened:
        position = start
        for offset, length, flags in opened.block_status("qemu:dirty-bitmap:b", start, end):
            assert offset == position
            assert length > 0
            position += length
            assert set(dirty[offset // grain : -(-(offset + length) // grain)]) == {bool(flags)}
        assert position == end
