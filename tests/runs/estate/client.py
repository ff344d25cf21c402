"""A client of the database, outside: it goes where the gate leads, and keeps every acknowledgement."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

BANNER = b"database ready\n"
_SECONDS = 10.0


class Client:
    """Writes 1, 2, 3, ...; a number that was not acknowledged is sent again, wherever the database is by then."""

    def __init__(self, where: Callable[[], int], pause: float) -> None:
        """`pause`: seconds between two numbers."""
        self._where, self._pause = where, pause
        self.acknowledged: list[tuple[int, int, float]] = []
        """Number, port that said so, and when."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, name="client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def newest(self) -> int:
        return self.acknowledged[-1][0] if self.acknowledged else 0

    def goes_on(self, port: int, seconds: float = 300.0) -> bool:
        """Whether something new is acknowledged at that port."""
        before, end = len(self.acknowledged), time.monotonic() + seconds
        while time.monotonic() < end:
            if any(at == port for _number, at, _time in self.acknowledged[before:]):
                return True
            time.sleep(0.05)
        return False

    def _write(self) -> None:
        while not self._ended.wait(0.1):
            port = self._where()
            with suppress(OSError, EOFError, ValueError), _connected(port) as connection:
                lines = connection.makefile("rb")
                if lines.readline() != BANNER:
                    continue
                while not self._ended.wait(self._pause) and self._where() == port:
                    number = self.newest + 1
                    connection.sendall(b"%d\n" % number)
                    if lines.readline() != b"ok %d\n" % number:
                        break
                    self.acknowledged.append((number, port, time.monotonic()))


def kept(port: int, seconds: float = 60.0) -> list[int]:
    """All that the database has."""
    end = time.monotonic() + seconds
    while True:
        with suppress(OSError), _connected(port) as connection:
            lines = connection.makefile("rb")
            if lines.readline() == BANNER:
                connection.sendall(b"all\n")
                found = []
                for line in lines:
                    if line == b"end\n":
                        return found
                    found.append(int(line))
        assert time.monotonic() < end, "the database does not answer"
        time.sleep(0.2)


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _SECONDS)
