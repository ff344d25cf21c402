"""One client in transmission: requests, and their replies in whatever order they are ready."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from pipeline.errors import FailbackError, TargetFull
from pipeline.logs import logger
from pipeline.nbd import protocol as p
from pipeline.nbd.wire import Wire
from pipeline.serve.budget import Budget
from pipeline.serve.disk import ServedDisk
from pipeline.serve.handshake import CONTEXT_ID, Agreed, Export, Rejected, welcome
from pipeline.serve.overlay import BLOCK
from pipeline.store.base import Bytes

MAX_REQUEST = p.DEFAULT_MAX_BLOCK
"""Bytes of one read or write at most."""
_INLINE = 256 << 10
"""Bytes that are answered by the thread that reads requests, when nothing has to be waited for."""
_HANDSHAKE_SECONDS = 30
_SEND_SECONDS = 60
_AT_ONCE = 8
"""Requests of one client in the server's threads at a time, half of them: one that takes no answers holds up nobody."""
_MAX_EXTENTS = 1024
_ZEROS = memoryview(bytes(1 << 20))
_FLAGS: dict[int, int] = {
    p.Command.READ: int(p.CommandFlag.FUA | p.CommandFlag.DONT_FRAGMENT),
    p.Command.WRITE: int(p.CommandFlag.FUA),
    p.Command.FLUSH: int(p.CommandFlag.FUA),
    p.Command.TRIM: int(p.CommandFlag.FUA),
    p.Command.WRITE_ZEROES: int(p.CommandFlag.FUA | p.CommandFlag.NO_HOLE),
    p.Command.BLOCK_STATUS: int(p.CommandFlag.FUA | p.CommandFlag.REQ_ONE),
}
"""Flags that each command may have. (The complement of a plain number has all other bits, that of a flag has not.)"""


class Session:
    """Owns the socket. `run` is called once, in a thread of its own; `end` from any thread."""

    def __init__(self, link: socket.socket, disk: ServedDisk, export: Export, pool: Executor, budget: Budget) -> None:
        self._link = link
        self._wire = Wire(link, _HANDSHAKE_SECONDS)
        self._disk = disk
        self._export = export
        self._pool = pool
        self._budget = budget
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._agreed = Agreed()
        self._sending = threading.Lock()
        self._idle = threading.Condition()
        self._under_way = 0
        self._buffer = memoryview(bytearray(_INLINE))
        self.transmitted = False
        """The client came as far as asking for blocks."""

    def run(self) -> None:
        """Until the client leaves, breaks the protocol, or `end` is called. Replies that are due are sent first."""
        try:
            agreed = welcome(self._wire, self._export)
            if agreed is None:
                return
            self._agreed = agreed
            self.transmitted = True
            self._wait_for_ever()
            self._serve()
        except Rejected as error:
            logger().warning("NBD client refused: %s", error)
        except p.NbdLost:
            pass  # gone without goodbye, as a killed QEMU is
        finally:
            self._drain()
            self._wire.close()

    def end(self) -> None:
        """No further request is read. Replies that are due are still sent."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RD)

    def _wait_for_ever(self) -> None:
        """A guest may have nothing to ask for hours; a client that takes no reply holds up nobody for long."""
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))

    def _serve(self) -> None:
        head = bytearray(p.REQUEST.size)
        view = memoryview(head)
        while True:
            self._wire.receive_into(view)
            magic, flags, command, cookie, offset, length = p.REQUEST.unpack(head)
            if magic != p.REQUEST_MAGIC:
                raise Rejected(f"no request where one was due ({magic:#x})")
            if command == p.Command.DISC:
                return
            if command == p.Command.WRITE:
                self._receive_write(flags, cookie, offset, length)
            elif code := self._refusal(command, flags, offset, length):
                self._refuse(cookie, code, "this request cannot be answered")
            elif command == p.Command.READ:
                self._start_read(cookie, offset, length)
            else:
                self._start(p.Command(command), flags, cookie, offset, length)

    def _start(self, command: p.Command, flags: int, cookie: int, offset: int, length: int) -> None:
        """What takes long: other requests go on meanwhile."""
        fua = bool(flags & p.CommandFlag.FUA)
        if command == p.Command.FLUSH:
            self._later(cookie, self._disk.flush)
        elif command == p.Command.TRIM:
            self._later(cookie, partial(self._trim, offset, length), fua=fua)
        elif command == p.Command.WRITE_ZEROES:
            hole = not flags & p.CommandFlag.NO_HOLE
            self._later(cookie, partial(self._zero, offset, length, hole=hole), fua=fua)
        elif command == p.Command.BLOCK_STATUS:
            one = bool(flags & p.CommandFlag.REQ_ONE)
            self._submit(0, partial(self._status, cookie, offset, length, one=one), cookie)

    def _refusal(self, command: int, flags: int, offset: int, length: int) -> int:
        """The error for a request that makes no sense, or 0."""
        if command not in _FLAGS or flags & ~_FLAGS[command]:
            return errno.EINVAL
        if command == p.Command.FLUSH:
            return errno.EINVAL if offset or length else 0
        if offset + length > self._export.size:
            return errno.ENOSPC if command in (p.Command.WRITE, p.Command.WRITE_ZEROES) else errno.EINVAL
        if command == p.Command.READ and length > MAX_REQUEST:
            return errno.EOVERFLOW
        if command in (p.Command.READ, p.Command.BLOCK_STATUS) and not length:
            return errno.EINVAL
        if command == p.Command.BLOCK_STATUS and not self._agreed.allocation:
            return errno.EINVAL
        return 0

    # -- commands --------------------------------------------------------------------------------------------------

    def _start_read(self, cookie: int, offset: int, length: int) -> None:
        if length <= _INLINE:
            view = self._buffer[:length]
            try:
                ready = self._disk.try_read(offset, view)
            except Exception:  # noqa: BLE001 - the slow way meets it again, and answers it
                ready = False
            if ready:
                self._send_data(cookie, offset, view)
                return
        self._budget.take(length)
        self._submit(length, partial(self._read, cookie, offset, length), cookie)

    def _read(self, cookie: int, offset: int, length: int) -> None:
        view = memoryview(bytearray(length))
        self._disk.read_into(offset, view)
        self._send_data(cookie, offset, view)

    def _receive_write(self, flags: int, cookie: int, offset: int, length: int) -> None:
        if length > MAX_REQUEST:
            raise Rejected(f"a write of {length} bytes")
        self._budget.take(length)
        try:
            data = bytearray(length)
            self._wire.receive_into(memoryview(data))
        except BaseException:
            self._budget.give(length)
            raise
        if code := self._refusal(p.Command.WRITE, flags, offset, length):
            self._budget.give(length)
            self._refuse(cookie, code, "this request cannot be answered")
            return
        fua = bool(flags & p.CommandFlag.FUA)
        write = partial(self._disk.write, offset, data)
        if offset % BLOCK or (offset + length) % BLOCK or fua:
            self._later(cookie, write, fua=fua, taken=length)
            return
        self._begin()
        self._guarded(partial(self._change, cookie, write, fua), cookie, length)

    def _trim(self, offset: int, length: int) -> None:
        """Whole blocks only: it is a hint, and the rest of a block would have to be fetched."""
        start, end = -(-offset // BLOCK) * BLOCK, (offset + length) // BLOCK * BLOCK
        if start < end:
            self._disk.zero(start, end - start)

    def _zero(self, offset: int, length: int, *, hole: bool) -> None:
        if hole:
            self._disk.zero(offset, length)
            return
        while length:
            part = min(length, _ZEROS.nbytes)
            self._disk.write(offset, _ZEROS[:part])
            offset += part
            length -= part

    def _status(self, cookie: int, offset: int, length: int, *, one: bool) -> None:
        found: list[tuple[int, int]] = []
        for extent in self._disk.extents(offset, offset + length):
            state = p.STATE_HOLE | p.STATE_ZERO if extent.zero else 0
            if found and found[-1][1] == state:
                found[-1] = (found[-1][0] + extent.length, state)
                continue
            if len(found) == (1 if one else _MAX_EXTENTS):
                break
            found.append((extent.length, state))
        body = struct.pack(">I", CONTEXT_ID) + b"".join(struct.pack(">II", *part) for part in found)
        head = p.STRUCTURED_REPLY.pack(p.STRUCTURED_REPLY_MAGIC, p.REPLY_DONE, p.Chunk.BLOCK_STATUS, cookie, len(body))
        self._send([head, body])

    # -- doing them ------------------------------------------------------------------------------------------------

    def _later(self, cookie: int, action: Callable[[], None], *, fua: bool = False, taken: int = 0) -> None:
        """Change the disk in another thread, and say that it is done. `taken`: bytes of the budget that it has."""
        self._submit(taken, partial(self._change, cookie, action, fua), cookie)

    def _change(self, cookie: int, action: Callable[[], None], fua: bool) -> None:
        action()
        if fua:
            self._disk.flush()
        self._send([p.SIMPLE_REPLY.pack(p.SIMPLE_REPLY_MAGIC, 0, cookie)])

    def _submit(self, taken: int, work: Callable[[], None], cookie: int) -> None:
        self._begin()
        self._turns.acquire()
        try:
            self._pool.submit(self._in_turn, work, cookie, taken)
        except RuntimeError:  # the server ends
            self._turns.release()
            self._done(taken)
            raise p.NbdLost("the server ends") from None

    def _in_turn(self, work: Callable[[], None], cookie: int, taken: int) -> None:
        try:
            self._guarded(work, cookie, taken)
        finally:
            self._turns.release()

    def _guarded(self, work: Callable[[], None], cookie: int, length: int) -> None:
        """Whatever goes wrong becomes the client's I/O error, and is logged."""
        try:
            work()
        except p.NbdLost:
            pass  # the reader sees it too
        except TargetFull as error:
            logger().error("a write of the guest failed: %s (%s)", error.message, error.remedy)
            self._refuse(cookie, errno.ENOSPC, error.message)
        except FailbackError as error:
            logger().error("an I/O error for the guest: %s", error.message)
            self._refuse(cookie, errno.EIO, error.message)
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            logger().error("a request of the guest failed: %s", "".join(traceback.format_exception(error)))
            self._refuse(cookie, errno.EIO, f"{type(error).__name__}: {error}")
        finally:
            self._done(length)

    def _begin(self) -> None:
        with self._idle:
            self._under_way += 1

    def _done(self, length: int) -> None:
        self._budget.give(length)
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()

    def _drain(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: not self._under_way)

    # -- replies ---------------------------------------------------------------------------------------------------

    def _send_data(self, cookie: int, offset: int, view: memoryview) -> None:
        if self._agreed.structured:
            head = p.STRUCTURED_REPLY.pack(
                p.STRUCTURED_REPLY_MAGIC, p.REPLY_DONE, p.Chunk.OFFSET_DATA, cookie, 8 + view.nbytes
            )
            self._send([head + offset.to_bytes(8, "big"), view])
        else:
            self._send([p.SIMPLE_REPLY.pack(p.SIMPLE_REPLY_MAGIC, 0, cookie), view])

    def _refuse(self, cookie: int, code: int, message: str) -> None:
        text = message.encode()[: p.MAX_STRING]
        with contextlib.suppress(p.NbdLost):
            if self._agreed.structured:
                body = struct.pack(">IH", code, len(text)) + text
                head = p.STRUCTURED_REPLY.pack(p.STRUCTURED_REPLY_MAGIC, p.REPLY_DONE, p.Chunk.ERROR, cookie, len(body))
                self._send([head, body])
            else:
                self._send([p.SIMPLE_REPLY.pack(p.SIMPLE_REPLY_MAGIC, code, cookie)])

    def _send(self, parts: Sequence[Bytes]) -> None:
        with self._sending:
            try:
                self._wire.send(parts)
            except p.NbdLost:
                # Half a reply may be out: nothing that follows would be understood.
                with contextlib.suppress(OSError):
                    self._link.shutdown(socket.SHUT_RDWR)
                raise
