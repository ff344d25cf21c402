"""Clients of one store, of which exactly one runs at a time: each waits before every request for the baton.

The code that is driven has no idea of it: it runs in a thread of its own, and blocks in its store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

from pipeline.transfer.process import Process

Fate = Literal["done", "refused", "lost", "held", "twice", "stale", "killed before", "killed after"]


class Killed(BaseException):
    """Kill -9 of the client: no handler of its code may do anything with the store any more."""


class Client:
    """One process on a host. `work` runs when the baton is handed over for the first time."""

    _here = threading.local()

    def __init__(self, name: str, host: str, number: int, work: Callable[[Client], object]) -> None:
        self.name, self.host, self.number = name, host, number
        self.request = ("start", "")
        self.announced: set[str] = set()
        """Keys of the sessions that it knows to have begun."""
        self.alive = True
        self.done = False
        self.outcome = ""
        self.error: BaseException | None = None
        self._fate: Fate = "done"
        self._work = work
        # Bare locks, since each is released once for each time it is taken: a semaphore costs five times as much.
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @classmethod
    def current(cls) -> Client:
        found: Client = cls._here.client
        return found

    @property
    def process(self) -> Process:
        return Process(self.host, f"boot of {self.host}", self.number, self.number, "one")

    def step(self, fate: Fate = "done") -> None:
        """Let it make its request, with this fate, and come to its next one or its end."""
        self._fate = fate
        self._go.release()
        self._back.acquire()

    def wait(self, verb: str, key: str) -> Fate:
        """Called in its own thread before a request. Raises Killed."""
        if not self.alive:
            raise Killed
        self.request = (verb, key)
        self._back.release()
        self._go.acquire()
        if self._fate == "killed before":
            self.kill()
        return self._fate

    def kill(self) -> None:
        self.alive = False
        raise Killed

    def _run(self) -> None:
        self._here.client = self
        self._go.acquire()
        try:
            self._work(self)
            self.outcome = "done"
        except Killed:
            self.outcome = "killed"
        except BaseException as error:  # noqa: BLE001
            # It is for the scheduler to judge: a thread has nobody above it.
            self.outcome, self.error = type(error).__name__, error
        self.alive = False
        self.done = True
        self._back.release()


class Inline:
    """Stands for a ThreadPoolExecutor: one thread a client, so that a schedule can be run again."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)
        return future

    def map(self, call: Callable[..., Any], *rows: Any) -> Any:
        return map(call, *rows)

    def shutdown(self, **_named: Any) -> None:
        pass
