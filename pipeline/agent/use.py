"""Whether some controller needs an agent right now: `clock` in its mailbox, written anew while one does (FORMAT.md,
section 16). Whoever has none of the keys sees that too."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.mail import clock_key
from pipeline.errors import FailbackError, StoreError
from pipeline.store.base import Store

BEAT = 15.0
"""Seconds between writes: one PUT each."""
SILENT = 75.0
"""Seconds that somebody has to look on, and see none, to know that the controller is dead or gave up: a bucket that is
away for half a minute is no death."""
LONG_AGO = 3600.0
"""A write that was so many seconds ago by this host's clock needs no looking on. Clocks are right within 15 minutes, or
S3 does not let their hosts in."""
USED, FREE = b"\n", b"free\n"


@contextmanager
def used(store: Store, agent: str, lock: Path) -> Iterator[None]:
    """It is needed until the end. `lock`: a file of this host's own for the agent; its commands may use it side by
    side. A command that is interrupted or loses the store says nothing at its end: others find out."""
    ended = threading.Event()
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        store.put(clock_key(agent), USED)
        thread = threading.Thread(target=_beat, args=(store, agent, ended), name=f"use of {agent}", daemon=True)
        thread.start()
        try:
            yield
        except StoreError:
            raise
        except FailbackError:
            _end(store, agent, fd, ended, thread)
            raise
        _end(store, agent, fd, ended, thread)
    finally:
        ended.set()
        os.close(fd)


def _end(store: Store, agent: str, fd: int, ended: threading.Event, thread: threading.Thread) -> None:
    ended.set()
    thread.join()
    with suppress(BlockingIOError, StoreError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else here needs it
        store.put(clock_key(agent), FREE)


def _beat(store: Store, agent: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with suppress(StoreError):  # whoever waits for the agent is told
            store.put(clock_key(agent), USED)


def free_here(lock: Path) -> bool:
    """No command of this host uses the agent with this lock file."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class Onlooker:
    """Finds out whether another host's controller still needs its agent."""

    def __init__(
        self,
        store: Store,
        agent: str,
        *,
        boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._store, self._key, self._boottime = store, clock_key(agent), boottime
        self._seen: object = None
        self._since = boottime()

    def over(self) -> bool:
        """It said so, or is dead, or never was. Raises StoreError: nobody is taken for dead because we see nothing."""
        info = self._store.head(self._key)
        if info is None or time.time() - info.modified.timestamp() > LONG_AGO:
            return True
        if bytes(self._store.get(self._key)) == FREE:
            return True
        now = self._boottime()
        if info.modified != self._seen:
            self._seen, self._since = info.modified, now
        return now - self._since > SILENT
