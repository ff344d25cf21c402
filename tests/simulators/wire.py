"""A TCP line between a client and a server, which knows nothing of what it carries: it is held, or it is cut."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE = 1 << 16


class Wire:
    """`address` (HOST:PORT) is where clients connect. All methods may be called from any thread."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._whole = True
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """Not a byte goes either way until `mend`, as when packets are lost; connections stay, new ones wait."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def cut(self) -> None:
        """Connections are reset, and so is every new one until `mend`."""
        self._loop.call_soon_threadsafe(self._cut)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._mend)

    def _cut(self) -> None:
        self._whole = False
        for writer in list(self._open):
            _reset(writer)

    def _mend(self) -> None:
        self._whole = True
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not self._whole:
            _reset(writer)
            return
        try:
            back, forth = await asyncio.open_connection(*self._server)
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, forth}
        try:
            await asyncio.gather(self._pass(reader, forth), self._pass(back, writer))
        except OSError:
            _reset(writer)
            _reset(forth)
        except asyncio.CancelledError:
            pass  # the test is over; what awaits a task of asyncio's streams would tell of it as of a failure
        finally:
            self._open -= {writer, forth}
            writer.close()
            forth.close()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(PIECE):
            await self._flows.wait()
            target.write(piece)
            await target.drain()
        await self._flows.wait()
        with suppress(OSError):
            target.write_eof()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._loop.stop()

    @contextmanager
    def running(self) -> Iterator[Wire]:
        thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        try:
            yield self
        finally:
            with suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(self._end(server), self._loop)
            thread.join()
            self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
