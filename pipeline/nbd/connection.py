"""One connection in transmission: requests and their replies. Used by one thread at a time."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence

from pipeline.nbd import protocol as p
from pipeline.nbd.handshake import handshake
from pipeline.nbd.wire import Wire
from pipeline.store.base import Bytes

_ZEROS = memoryview(bytes(1024 * 1024))


class _Piece:
    """One READ under way: where its bytes go and which of them have come."""

    __slots__ = ("buffer", "error", "offset", "ranges")

    def __init__(self, offset: int, buffer: memoryview) -> None:
        self.offset = offset
        self.buffer = buffer
        self.ranges: list[tuple[int, int]] = []
        self.error: p.NbdError | None = None

    def part(self, offset: int, length: int) -> memoryview:
        """The place of a chunk of the answer; NbdLost when it lies outside of what was asked."""
        start = offset - self.offset
        if start < 0 or length < 1 or start + length > self.buffer.nbytes:
            raise p.NbdLost(f"the server broke the protocol ({length} bytes at {offset} were not asked for)")
        self.ranges.append((start, length))
        return self.buffer[start : start + length]

    def check_complete(self) -> None:
        """Chunks may come in any order, but must cover the request once."""
        position = 0
        for start, length in sorted(self.ranges):
            if start != position:
                break
            position += length
        if position != self.buffer.nbytes:
            raise p.NbdLost("the server broke the protocol (an answer with gaps or overlaps)")


class Connection:
    """After any NbdLost only `close` makes sense; after an NbdError the connection goes on."""

    def __init__(self, wire: Wire, export: str) -> None:
        """Raises NbdRefused or NbdLost."""
        self._wire = wire
        self._cookie = 0
        self._head = bytearray(20)
        self._head_start = memoryview(self._head)[:16]
        self._head_rest = memoryview(self._head)[16:]
        self.terms = handshake(wire, export)

    def read(self, offset: int, buffer: memoryview, piece: int, window: int) -> None:
        """Fill `buffer`, asking for at most `piece` bytes at a time with `window` requests under way."""
        waiting: dict[int, _Piece] = {}
        failure: p.NbdError | None = None
        asked, total = 0, buffer.nbytes
        while asked < total or waiting:
            while asked < total and len(waiting) < window and failure is None:
                length = min(piece, total - asked)
                cookie = self._request(p.Command.READ, offset + asked, length)
                waiting[cookie] = _Piece(offset + asked, buffer[asked : asked + length])
                asked += length
            if not waiting:
                break
            cookie, done = self._read_reply(waiting)
            if done:
                finished = waiting.pop(cookie)
                if finished.error is None:
                    finished.check_complete()
                else:
                    failure = failure or finished.error
        if failure is not None:
            raise failure

    def _read_reply(self, waiting: dict[int, _Piece]) -> tuple[int, bool]:
        structured, flags, kind, cookie, length = self._reply()
        piece = waiting.get(cookie)
        if piece is None:
            raise p.NbdLost("the server broke the protocol (answer to no request)")
        if not structured:
            if self.terms.structured:
                raise p.NbdLost("the server broke the protocol (simple reply to a read)")
            if kind:
                piece.error = _error(kind)
            else:
                self._wire.receive_into(piece.part(piece.offset, piece.buffer.nbytes))
            return cookie, True
        if kind == p.Chunk.OFFSET_DATA:
            if length <= 8:
                raise p.NbdLost("the server broke the protocol (data chunk without data)")
            (at,) = self._wire.unpack(">Q")
            self._wire.receive_into(piece.part(at, length - 8))
        elif kind == p.Chunk.OFFSET_HOLE:
            if length != 12:
                raise p.NbdLost("the server broke the protocol (hole chunk of a wrong length)")
            at, hole = self._wire.unpack(">QI")
            _clear(piece.part(at, hole))
        else:
            error = self._common_chunk(kind, length)
            if error is not None:
                piece.error = piece.error or error
        return cookie, bool(flags & p.REPLY_DONE)

    def write(self, offset: int, buffers: Sequence[Bytes], length: int) -> None:
        """`length` is the sum of the buffers', at most `terms.max_block`."""
        self._cookie += 1
        head = p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.Command.WRITE, self._cookie, offset, length)
        self._wire.send([head, *buffers])
        self._finish(self._cookie)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Without the NO_HOLE flag: the server may make a hole."""
        self._finish(self._request(p.Command.WRITE_ZEROES, offset, length))

    def trim(self, offset: int, length: int) -> None:
        """Only a hint; what is read there afterwards is not defined."""
        self._finish(self._request(p.Command.TRIM, offset, length))

    def flush(self) -> None:
        self._finish(self._request(p.Command.FLUSH, 0, 0))

    def block_status(self, context: int, offset: int, length: int) -> list[tuple[int, int]]:
        """(length, flags) of consecutive ranges from `offset`: at least one, maybe fewer than asked, maybe beyond."""
        cookie = self._request(p.Command.BLOCK_STATUS, offset, length)
        found: list[tuple[int, int]] = []
        failure: p.NbdError | None = None
        while True:
            structured, flags, kind, about, size = self._reply()
            if about != cookie:
                raise p.NbdLost("the server broke the protocol (answer to no request)")
            if not structured:
                failure = _error(kind)
                break
            if kind == p.Chunk.BLOCK_STATUS:
                if size < 12 or size % 8 != 4 or size > p.MAX_STATUS_REPLY:
                    raise p.NbdLost(f"the server broke the protocol (block status of {size} bytes)")
                body = self._wire.receive(size)
                if int.from_bytes(body[:4], "big") == context:
                    if found:
                        raise p.NbdLost("the server broke the protocol (one context answered twice)")
                    found = list(struct.iter_unpack(">II", memoryview(body)[4:]))
            else:
                failure = failure or self._common_chunk(kind, size)
            if flags & p.REPLY_DONE:
                break
        if failure is not None:
            raise failure
        if not found or any(part == 0 for part, _ in found):
            raise p.NbdLost("the server broke the protocol (empty block status)")
        return found

    def close(self) -> None:
        """Say goodbye if that is still possible."""
        with contextlib.suppress(p.NbdLost):
            self._request(p.Command.DISC, 0, 0)
        self._wire.close()

    def abort(self) -> None:
        """Close without a word, after NbdLost."""
        self._wire.close()

    def _request(self, command: p.Command, offset: int, length: int) -> int:
        self._cookie += 1
        self._wire.send([p.REQUEST.pack(p.REQUEST_MAGIC, 0, command, self._cookie, offset, length)])
        return self._cookie

    def _reply(self) -> tuple[bool, int, int, int, int]:
        """(structured, flags, type or error, cookie, length of what follows)."""
        self._wire.receive_into(self._head_start)
        (magic,) = struct.unpack_from(">I", self._head)
        if magic == p.SIMPLE_REPLY_MAGIC:
            code, cookie = struct.unpack_from(">IQ", self._head, 4)
            return False, p.REPLY_DONE, code, cookie, 0
        if magic != p.STRUCTURED_REPLY_MAGIC or not self.terms.structured:
            raise p.NbdLost("the server broke the protocol (no reply where one was due)")
        self._wire.receive_into(self._head_rest)
        flags, kind, cookie, length = struct.unpack_from(">HHQI", self._head, 4)
        return True, flags, kind, cookie, length

    def _common_chunk(self, kind: int, length: int) -> p.NbdError | None:
        """A chunk that any command may be answered with: nothing, or an error."""
        if kind == p.Chunk.NONE and length == 0:
            return None
        if not kind & p.CHUNK_ERROR:
            raise p.NbdLost(f"the server broke the protocol (unexpected chunk of type {kind})")
        if not 6 <= length <= 6 + p.MAX_STRING + 8:
            raise p.NbdLost(f"the server broke the protocol (error of {length} bytes)")
        body = self._wire.receive(length)
        code, size = struct.unpack_from(">IH", body)
        if 6 + size > length:
            raise p.NbdLost("the server broke the protocol (error message longer than its chunk)")
        error = _error(code or 22, body[6 : 6 + size].decode("utf-8", "replace"))
        if kind == p.Chunk.ERROR_OFFSET and length >= 6 + size + 8:
            (error.offset,) = struct.unpack_from(">Q", body, 6 + size)
        return error

    def _finish(self, cookie: int) -> None:
        """Wait for the reply to a request that returns no data."""
        failure: p.NbdError | None = None
        done = False
        while not done:
            structured, flags, kind, about, length = self._reply()
            if about != cookie:
                raise p.NbdLost("the server broke the protocol (answer to no request)")
            if structured:
                failure = failure or self._common_chunk(kind, length)
            elif kind:
                failure = _error(kind)
            done = bool(flags & p.REPLY_DONE)
        if failure is not None:
            raise failure


def _error(code: int, message: str = "") -> p.NbdError:
    return p.NbdError(code, message or os.strerror(code))


def _clear(view: memoryview) -> None:
    for start in range(0, view.nbytes, _ZEROS.nbytes):
        part = min(_ZEROS.nbytes, view.nbytes - start)
        view[start : start + part] = _ZEROS[:part]
