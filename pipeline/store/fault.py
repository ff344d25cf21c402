"""A layer that breaks things on purpose: what every test of a lost answer, a cut or a kill is made of.

    plan = [Rule(Fail(StoreUnavailable("down")), verb="put", nth=3), Rule(Kill(), key=startswith("manifests/"))]
    store = FaultyStore(MemoryStore(), plan)

It can only be asked for in Python: no setting and no variable puts it into a running system.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.errors import StoreUnavailable
from pipeline.store.base import Bytes, ObjectInfo, Store, flat
from pipeline.store.layer import Layer


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise `error` and do nothing."""

    error: Exception


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Do it, then raise `error` as if the answer got lost. A listing is cut after its first entry."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Sleep, then do it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Truncate:
    """Keep only the first `length` bytes of what is put or got."""

    length: int


@dataclass(frozen=True, slots=True)
class Flip:
    """Flip the lowest bit of the byte at `offset` (negative: from the end) of what is put or got."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill this process with SIGKILL: before acting, or after it with `after`."""

    after: bool = False


Fault: TypeAlias = Fail | LoseAnswer | Delay | Truncate | Flip | Kill


@dataclass(frozen=True, slots=True)
class Rule:
    """When a fault happens: calls of `verb` (empty: any) with a key that `key` accepts (None: any).

    Of the calls that match, the `nth` (from 1; 0 is each), and with `last` every one from there up to that.
    A call of `delete_many` is looked at by its first key, one of `list` by its prefix.
    """

    fault: Fault
    verb: str = ""
    key: Callable[[str], bool] | None = None
    nth: int = 0
    last: int = 0

    def matches(self, verb: str, key: str) -> bool:
        return self.verb in ("", verb) and (self.key is None or self.key(key))

    def applies(self, count: int) -> bool:
        """Whether it happens on the `count`-th call that matched."""
        return self.nth == 0 or self.nth <= count <= max(self.last, self.nth)


def startswith(prefix: str) -> Callable[[str], bool]:
    """For `Rule.key`."""
    return lambda key: key.startswith(prefix)


class FaultyStore(Layer):
    """Does what `plan` says; `calls` counts calls by verb and `history` lists (verb, key) in order."""

    def __init__(self, inner: Store, plan: Sequence[Rule] = ()) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.history: list[tuple[str, str]] = []
        self._plan = tuple(plan)
        self._counts = [0] * len(self._plan)
        self._lock = threading.Lock()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        faults = self._before("put", key)
        self.inner.put(key, _damaged(data, faults), create=create)
        self._after("put", key, faults)

    def get(self, key: str) -> memoryview:
        faults = self._before("get", key)
        data = self.inner.get(key)
        self._after("get", key, faults)
        return memoryview(_damaged(data, faults)).toreadonly()

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        faults = self._before("get_range", key)
        data = self.inner.get_range(key, offset, length)
        self._after("get_range", key, faults)
        return memoryview(_damaged(data, faults)).toreadonly()

    def head(self, key: str) -> ObjectInfo | None:
        faults = self._before("head", key)
        info = self.inner.head(key)
        self._after("head", key, faults)
        return info

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        faults = self._before("list", prefix)
        for number, info in enumerate(self.inner.list(prefix, after=after)):
            if number == 1:
                self._after("list", prefix, faults)
            yield info

    def delete_many(self, keys: Iterable[str]) -> None:
        keys = tuple(keys)
        first = keys[0] if keys else ""
        faults = self._before("delete_many", first)
        self.inner.delete_many(keys)
        self._after("delete_many", first, faults)

    def _before(self, verb: str, key: str) -> tuple[Fault, ...]:
        """Count the call, do what comes before it, and return what happens to it."""
        happening: list[Fault] = []
        with self._lock:
            self.calls[verb] += 1
            self.history.append((verb, key))
            for position, rule in enumerate(self._plan):
                if rule.matches(verb, key):
                    self._counts[position] += 1
                    if rule.applies(self._counts[position]):
                        happening.append(rule.fault)
        for fault in happening:
            match fault:
                case Fail(error):
                    raise error
                case Delay(seconds):
                    time.sleep(seconds)
                case Kill(after=False):
                    os.kill(os.getpid(), signal.SIGKILL)
                case _:
                    pass
        return tuple(happening)

    def _after(self, verb: str, key: str, faults: tuple[Fault, ...]) -> None:
        for fault in faults:
            match fault:
                case LoseAnswer(error):
                    raise error or StoreUnavailable(f"the answer to {verb} {key} was lost on purpose")
                case Kill(after=True):
                    os.kill(os.getpid(), signal.SIGKILL)
                case _:
                    pass


def _damaged(data: Bytes, faults: tuple[Fault, ...]) -> Bytes:
    for fault in faults:
        match fault:
            case Truncate(length):
                data = bytes(flat(data)[:length])
            case Flip(offset):
                copy = bytearray(flat(data))
                copy[offset] ^= 1
                data = copy
            case _:
                pass
    return data
