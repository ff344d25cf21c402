"""A TCP proxy before a real S3 server: it cuts, holds and loses, and it moves the server's clock forward.

Clients and server are processes that it knows nothing of: it speaks of connections and HTTP messages only.

The clock. What the server stored before a jump stays as old as it is, and all that it stores later is younger by the
jump: by headers and listings, the only places where a client sees the server's time. A jump begins with a whole second,
since headers have no fractions of one, and while no request is on its way: what takes effect later is later.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

PIECE = 1 << 16
MOST_OF_A_HEAD = 1 << 16
QUIET_SECONDS = 0.5
"""After the last answer: a request whose client went away may still be carried out."""
_END = b"\r\n\r\n"
_HEADER_TIME = re.compile(rb"(?im)^(last-modified|date): ([^\r\n]+)")
_LISTED_TIME = re.compile(rb"<LastModified>([^<]+)</LastModified>")
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding: *chunked")

Loss = Literal["refused", "half sent", "answer lost", "answer cut"]
LOSSES: tuple[Loss, ...] = ("refused", "half sent", "answer lost", "answer cut")


class Cut(Exception):
    """This connection ends here, by a reset."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request or of an answer."""

    text: bytes

    @property
    def method(self) -> bytes:
        return self.text.split(b" ", 1)[0]

    @property
    def status(self) -> int:
        return int(self.text.split(b" ", 2)[1])

    @property
    def length(self) -> int:
        found = _LENGTH.search(self.text)
        return int(found[1]) if found else 0

    @property
    def chunked(self) -> bool:
        return bool(_CHUNKED.search(self.text))


class RoughLine:
    """`endpoint` is where clients connect, `backend` where requests go. All methods may be called from any thread."""

    def __init__(self, backend: str, seed: int) -> None:
        self.backend = backend
        self.endpoint = ""
        self.loss = 0.0
        """How probably a request meets one of LOSSES."""
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._jumps: list[tuple[datetime, timedelta]] = []
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._admits = asyncio.Event()
        self._admits.set()
        self._busy = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what may happen ---------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Every connection is reset, whatever it carries."""
        self._loop.call_soon_threadsafe(self._cut)

    def hold(self) -> None:
        """Not a byte goes either way until `go_on`; connections stay."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.set)

    def pass_time(self, jump: timedelta) -> None:
        """The server's clock goes forward. Returns when it has."""
        asyncio.run_coroutine_threadsafe(self._pass_time(jump), self._loop).result()

    def moved(self, moment: datetime) -> datetime:
        """What the server's clock showed then."""
        return moment + sum((jump for since, jump in self._jumps if since <= moment), timedelta(0))

    # -- how ---------------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        self.counts["connections cut"] += len(self._open)
        for writer in list(self._open):
            _reset(writer)

    async def _pass_time(self, jump: timedelta) -> None:
        self._admits.clear()
        try:
            while self._busy:
                await asyncio.sleep(0.02)
            await asyncio.sleep(QUIET_SECONDS)
            moment = datetime.fromtimestamp(int(time.time()) + 1, UTC)
            await asyncio.sleep(moment.timestamp() - time.time() + 0.01)
            self._jumps.append((moment, jump))
        finally:
            self._admits.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        self.counts["connections"] += 1
        server: asyncio.StreamWriter | None = None
        try:
            where = urlsplit(self.backend)
            answers, server = await asyncio.open_connection(where.hostname, where.port, limit=MOST_OF_A_HEAD)
            while await self._request(reader, writer, answers, server):
                pass
        except (Cut, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)
        finally:
            self._open.discard(writer)
            for end in (writer, server):
                if end is not None:
                    end.close()

    async def _request(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        try:
            request = Head(await reader.readuntil(_END))
        except asyncio.IncompleteReadError:
            return False
        await self._admits.wait()
        self._busy += 1
        try:
            self.counts["requests"] += 1
            loss = self._random.choice(LOSSES) if self._random.random() < self.loss else None
            if loss is not None:
                self.counts[loss] += 1
            if loss == "refused":
                raise Cut
            if b"expect: 100-continue" in request.text.lower():
                writer.write(b"HTTP/1.1 100 Continue" + _END)
            server.write(request.text)
            await self._pass(reader, server, request.length // 2 if loss == "half sent" else request.length)
            if loss == "half sent":
                raise Cut
            answer, body = await self._answer(request, answers)
            if loss == "answer lost":
                raise Cut
            await self._send(writer, answer, answers, body, cut=loss == "answer cut")
        finally:
            self._busy -= 1
        return b"connection: close" not in answer.text.lower()

    async def _answer(self, request: Head, answers: asyncio.StreamReader) -> tuple[Head, bytes | int]:
        """Head of the answer, and its body: all of it where times are in it, else the bytes that follow."""
        while (answer := Head(await answers.readuntil(_END))).status < 200:
            pass
        text = _HEADER_TIME.sub(self._header_time, answer.text)
        if request.method == b"HEAD" or answer.status in (204, 304):
            return Head(text), 0
        if answer.chunked:
            body = await _chunks(answers)
            text = _CHUNKED.sub(b"Content-Length: %d" % len(body), text)
        elif b"application/xml" not in text:
            return Head(text), answer.length
        else:
            body = await answers.readexactly(answer.length)
        return Head(text), _LISTED_TIME.sub(self._listed_time, body)

    async def _send(
        self, writer: asyncio.StreamWriter, answer: Head, answers: asyncio.StreamReader, body: bytes | int, *, cut: bool
    ) -> None:
        await self._flows.wait()
        writer.write(answer.text)
        length = body if isinstance(body, int) else len(body)
        length = length // 2 if cut else length
        if isinstance(body, int):
            await self._pass(answers, writer, length)
        else:
            writer.write(body[:length])
            await writer.drain()
        if cut:
            raise Cut

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, length: int) -> None:
        while length:
            piece = await source.read(min(length, PIECE))
            if not piece:
                raise Cut
            await self._flows.wait()
            target.write(piece)
            await target.drain()
            length -= len(piece)
        await target.drain()

    def _header_time(self, found: re.Match[bytes]) -> bytes:
        moved = self.moved(parsedate_to_datetime(found[2].decode()).astimezone(UTC))
        return b"%s: %s" % (found[1], format_datetime(moved, usegmt=True).encode())

    def _listed_time(self, found: re.Match[bytes]) -> bytes:
        moved = self.moved(datetime.fromisoformat(found[1].decode()))
        text = moved.isoformat(timespec="milliseconds").removesuffix("+00:00")
        return b"<LastModified>%sZ</LastModified>" % text.encode()

    # -- its thread --------------------------------------------------------------------------------------------------

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MOST_OF_A_HEAD)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._loop.stop()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._loop.run_forever, name="rough line", daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        try:
            yield
        finally:
            with suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(self._end(server), self._loop)
            thread.join()
            self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN: what was not sent yet is thrown away."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _chunks(answers: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await answers.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await answers.readexactly(size + 2))[:-2]
    while await answers.readuntil(b"\r\n") != b"\r\n":
        pass
    return bytes(body)
