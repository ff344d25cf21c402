"""An export seen through as many connections as threads use it."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.nbd import protocol as p
from pipeline.nbd.connection import Connection
from pipeline.nbd.wire import Wire
from pipeline.store.base import Bytes

_PIECE = 2 * 1024 * 1024
"""Large reads are asked for in pieces of this size, so that the server reads one while we take another."""
_WINDOW = 4
_STATUS_STEP = 1 << 31
_ZERO_STEP = 1 << 30
_ZEROS = memoryview(bytes(1024 * 1024))


class NbdClient:
    """Verbs of one export, safe to call from many threads: each call takes a connection for itself.

    Offsets and lengths may be anything inside the export; what the server's smallest block does not allow is done by
    reading more, or by reading before writing. Raises NbdError for what the server reports, and NbdLost for a broken
    connection, from then on for every call.
    """

    def __init__(
        self, connect: Callable[[], socket.socket], export: str, *, connections: int = 4, timeout: float = 60.0
    ) -> None:
        """`connect` makes a connected socket (OSError when it can't). More than one connection is opened when the
        server says that they see each other's writes. Raises OSError, NbdRefused, NbdLost."""
        self._connect = connect
        self._export = export
        self._timeout = timeout
        self._ready = threading.Condition()
        self._lost: p.NbdLost | None = None
        self._edge_lock = threading.Lock()
        first = self._open()
        self.terms = first.terms
        self._idle: list[Connection] = [first]
        self._opened = 1
        self._limit = connections if self.terms.flags & p.Flag.CAN_MULTI_CONN else 1
        self._all: list[Connection] = [first]

    @property
    def size(self) -> int:
        return self.terms.size

    @property
    def connections(self) -> int:
        """How many calls can be under way at once."""
        return self._limit

    def open_all(self) -> None:
        """Open every connection now, for a server that is to accept no later ones."""
        while self._opened < self._limit:
            if not self._add():
                return

    def read(self, offset: int, buffer: memoryview) -> None:
        self._check(offset, buffer.nbytes)
        least = self.terms.min_block
        if offset % least == 0 and (buffer.nbytes % least == 0):
            self._read(offset, buffer)
            return
        start, end = self._outer(offset, offset + buffer.nbytes)
        bounce = memoryview(bytearray(end - start))
        self._read(start, bounce)
        buffer[:] = bounce[offset - start : offset - start + buffer.nbytes]

    def _read(self, offset: int, buffer: memoryview) -> None:
        if buffer.nbytes == 0:
            return
        piece = min(self.terms.max_block, max(_PIECE, self.terms.min_block))
        with self._connection() as connection:
            connection.read(offset, buffer, piece, _WINDOW)

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        views = [view for buffer in buffers if (view := memoryview(buffer).cast("B")).nbytes]
        total = sum(view.nbytes for view in views)
        self._check(offset, total)
        if total == 0:
            return
        least = self.terms.min_block
        if offset % least or total % least:
            self._write_edges(offset, views, total)
            return
        with self._connection() as connection:
            for length, batch in _batches(views, self.terms.max_block):
                connection.write(offset, batch, length)
                offset += length

    def _write_edges(self, offset: int, views: list[memoryview], total: int) -> None:
        """Blocks that are written in part are read first. One at a time: two writes may meet in one block."""
        start, end = self._outer(offset, offset + total)
        whole = memoryview(bytearray(end - start))
        with self._edge_lock:
            least = self.terms.min_block
            self._read(start, whole[:least])
            self._read(end - least, whole[-least:])
            position = offset - start
            for view in views:
                whole[position : position + view.nbytes] = view
                position += view.nbytes
            self.write(start, [whole])

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, as a hole where the server can."""
        self._check(offset, length)
        least = self.terms.min_block
        end = offset + length
        start = -(-offset // least) * least
        stop = end // least * least
        if start >= stop:
            self._write_zeros(offset, length)
            return
        self._write_zeros(offset, start - offset)
        self._write_zeros(stop, end - stop)
        if self.terms.flags & p.Flag.SEND_WRITE_ZEROES:
            try:
                with self._connection() as connection:
                    while start < stop:
                        part = min(stop - start, _ZERO_STEP)
                        connection.write_zeroes(start, part)
                        start += part
            except p.NbdError as error:
                if error.code not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            else:
                return
        self._write_zeros(start, stop - start)

    def _write_zeros(self, offset: int, length: int) -> None:
        while length > 0:
            part = min(length, _ZEROS.nbytes)
            self.write(offset, [_ZEROS[:part]])
            offset += part
            length -= part

    def trim(self, offset: int, length: int) -> None:
        """Tell the server that the range is not needed. What is read there afterwards is not defined."""
        if not self.terms.flags & p.Flag.SEND_TRIM:
            return
        least = self.terms.min_block
        start, end = -(-offset // least) * least, (offset + length) // least * least
        with self._connection() as connection:
            while start < end:
                part = min(end - start, _ZERO_STEP)
                connection.trim(start, part)
                start += part

    def flush(self) -> None:
        """Everything written before is stored when this returns, whatever connection it went through."""
        if self.terms.flags & p.Flag.SEND_FLUSH:
            with self._connection() as connection:
                connection.flush()

    def block_status(self, context: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(offset, length, flags) in order, covering [start, end) exactly. KeyError for an unknown context.

        A server may answer for less than was asked; then the rest is asked for again.
        """
        number = self.terms.contexts[context]
        position = start
        while position < end:
            at, limit = self._outer(position, end)
            with self._connection() as connection:
                found = connection.block_status(number, at, min(limit - at, _STATUS_STEP))
            for length, flags in found:
                stop = min(at + length, end)
                if stop > position:
                    yield position, stop - position, flags
                    position = stop
                at += length
                if at >= end:
                    break

    def size_now(self) -> int:
        """The export's size as a fresh connection sees it; the known one where the server may take no more of them.
        Raises OSError, NbdRefused, NbdLost."""
        if self._limit < 2:
            return self.size
        fresh = self._open()
        fresh.close()
        return fresh.terms.size

    def close(self) -> None:
        with self._ready:
            self._lost = self._lost or p.NbdLost("closed")
            connections, self._all = self._all, []
            self._ready.notify_all()
        for connection in connections:
            connection.close()

    def _outer(self, start: int, end: int) -> tuple[int, int]:
        """The range widened to the server's smallest block."""
        least = self.terms.min_block
        return start // least * least, min(-(-end // least) * least, self.size)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} reach past the end of the export at {self.size}")

    def _open(self) -> Connection:
        wire = Wire(self._connect(), self._timeout)
        try:
            return Connection(wire, self._export)
        except BaseException:
            wire.close()
            raise

    def _add(self) -> bool:
        """One more connection; when the server refuses it, those that are there must do."""
        with self._ready:
            if self._opened >= self._limit:
                return False
            self._opened += 1
        try:
            connection = self._open()
            if connection.terms.size != self.size:
                connection.close()
                raise p.NbdRefused("the export changed its size")
        except (OSError, p.NbdRefused, p.NbdLost):
            with self._ready:
                self._opened -= 1
                self._limit = self._opened
            return False
        with self._ready:
            self._all.append(connection)
            self._idle.append(connection)
            self._ready.notify()
        return True

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._take()
        try:
            yield connection
        except p.NbdError:
            self._give(connection)
            raise
        except BaseException as error:
            # Whatever happened, a reply may still be under way: this stream cannot be used again.
            with self._ready:
                if self._lost is None:
                    self._lost = (
                        error if isinstance(error, p.NbdLost) else p.NbdLost(f"a request was cut off: {error!r}")
                    )
                if connection in self._all:
                    self._all.remove(connection)
                self._ready.notify_all()
            connection.abort()
            raise
        else:
            self._give(connection)

    def _take(self) -> Connection:
        while True:
            with self._ready:
                if self._lost is not None:
                    raise self._lost
                if self._idle:
                    return self._idle.pop()
                full = self._opened >= self._limit
                if full:
                    self._ready.wait()
                    continue
            self._add()

    def _give(self, connection: Connection) -> None:
        with self._ready:
            self._idle.append(connection)
            self._ready.notify()


def _batches(views: list[memoryview], limit: int) -> Iterator[tuple[int, list[memoryview]]]:
    """(length, buffers) of consecutive requests of at most `limit` bytes."""
    batch: list[memoryview] = []
    length = 0
    for view in views:
        rest = view
        while rest.nbytes:
            part = rest[: limit - length]
            batch.append(part)
            length += part.nbytes
            rest = rest[part.nbytes :]
            if length == limit:
                yield length, batch
                batch, length = [], 0
    if batch:
        yield length, batch
