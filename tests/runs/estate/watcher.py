"""Which boot of each machine is alive when, by what the machines themselves say every 50 ms."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass

SILENCE = 1.0
"""Seconds without a beacon after which a boot was not alive in between: a busy host delays them."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two boots of one machine that were alive at once, and from when to when that was seen."""

    machine: str
    boots: tuple[str, str]
    begin: float
    end: float


class Watcher:
    """Listens on `port` of 127.0.0.1, which guests reach through QEMU's user network as 10.0.2.2."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard: dict[str, list[tuple[float, str]]] = defaultdict(list)
        """By machine: when a beacon came, and of which boot."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def forget(self) -> None:
        """What was heard until now."""
        self.heard = defaultdict(list)

    def boots(self, machine: str) -> list[str]:
        """In the order in which they were first heard."""
        return list(dict.fromkeys(boot for _time, boot in list(self.heard[machine])))

    def alive(self, machine: str, within: float = SILENCE) -> list[str]:
        since = time.monotonic() - within
        return list(dict.fromkeys(boot for at, boot in list(self.heard[machine]) if at >= since))

    def until_boots(self, machine: str, count: int, seconds: float = 300.0) -> bool:
        """Whether so many were heard within that time, and never more, and the last of them is alive."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            boots = self.boots(machine)
            if len(boots) >= count:
                return len(boots) == count and boots[-1] in self.alive(machine)
            time.sleep(0.1)
        return False

    def overlaps(self) -> list[Overlap]:
        return [found for machine in list(self.heard) for found in overlaps(machine, list(self.heard[machine]))]

    def _listen(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        rests: dict[socket.socket, bytes] = {}
        while not self._ended.is_set():
            for key, _events in selector.select(0.2):
                if key.fileobj is self._listener:
                    connection, _address = self._listener.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    rests[connection] = b""
                    continue
                assert isinstance(key.fileobj, socket.socket)
                try:
                    data = key.fileobj.recv(4096)
                except OSError:
                    data = b""
                now = time.monotonic()
                if not data:
                    selector.unregister(key.fileobj)
                    del rests[key.fileobj]
                    key.fileobj.close()
                    continue
                *lines, rests[key.fileobj] = (rests[key.fileobj] + data).split(b"\n")
                for line in lines:
                    machine, _, boot = line.decode().partition(" ")
                    self.heard[machine].append((now, boot))
        for connection in rests:
            connection.close()


def overlaps(machine: str, heard: list[tuple[float, str]]) -> list[Overlap]:
    """A boot is alive from one of its beacons to the next, unless that took longer than SILENCE."""
    pieces: list[tuple[float, float, str]] = []
    newest: dict[str, int] = {}
    for at, boot in heard:
        place = newest.get(boot)
        if place is not None and at - pieces[place][1] <= SILENCE:
            pieces[place] = (pieces[place][0], at, boot)
        else:
            newest[boot] = len(pieces)
            pieces.append((at, at, boot))
    found = []
    for number, (begin, end, boot) in enumerate(pieces):
        for other_begin, other_end, other in pieces[number + 1 :]:
            if other != boot and max(begin, other_begin) <= min(end, other_end):
                found.append(Overlap(machine, (boot, other), max(begin, other_begin), min(end, other_end)))
    return found
