"""A byte stream with deadlines: exact sends and receives."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from pipeline.nbd.protocol import NbdLost
from pipeline.store.base import Bytes

_IOV_MAX = os.sysconf("SC_IOV_MAX")


class Wire:
    """Owns the socket. A call that stands still for `timeout` seconds ends in NbdLost."""

    def __init__(self, link: socket.socket, timeout: float) -> None:
        self._socket = link
        self._timeout = timeout
        # Python's own timeouts make the socket non-blocking, which costs a poll(2) for every part of a large answer;
        # the kernel's timeouts let one recv(2) wait for all of it.
        link.settimeout(None)
        limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1_000_000))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def receive_into(self, view: memoryview) -> None:
        wanted = view.nbytes
        done = 0
        while done < wanted:
            try:
                got = self._socket.recv_into(view[done:] if done else view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                raise NbdLost(f"the server did not answer for {self._timeout:g} s") from None
            except OSError as error:
                raise NbdLost(f"the connection broke: {error.strerror or error}") from error
            if got == 0:
                raise NbdLost("the server closed the connection")
            done += got

    def receive(self, length: int) -> bytes:
        buffer = bytearray(length)
        self.receive_into(memoryview(buffer))
        return bytes(buffer)

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.receive(struct.calcsize(layout)))

    def send(self, parts: Sequence[Bytes]) -> None:
        pending = [memoryview(part).cast("B") for part in parts]
        while pending:
            batch = pending[:_IOV_MAX]
            try:
                sent = self._socket.sendmsg(batch)
            except BlockingIOError:
                raise NbdLost(f"the server took no data for {self._timeout:g} s") from None
            except OSError as error:
                raise NbdLost(f"the connection broke: {error.strerror or error}") from error
            used = 0
            for part in batch:
                if part.nbytes > sent:
                    break
                sent -= part.nbytes
                used += 1
            del pending[:used]
            if sent:
                pending[0] = pending[0][sent:]

    def close(self) -> None:
        self._socket.close()
