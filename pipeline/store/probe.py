"""What a store can do, found out by doing it on small objects below `probe/`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier

from pipeline.errors import AlreadyExists, FailbackError, StoreError, StoreUnavailable
from pipeline.store.base import Abilities, Store

RACERS = 4
ROUNDS = 3


def probe(store: Store) -> Abilities:
    """Try each ability on `store`. Objects below `probe/<random>/` are deleted again, also after a failure.

    An ability that does not work is reported as missing with a note. An error that says nothing about abilities
    (no right to write, not reachable) is raised.
    """
    home = f"probe/{secrets.token_hex(8)}"
    try:
        skew = clock_skew(store, f"{home}/clock")
        abilities = Abilities(
            conditional_put=False, ranged_get=False, multi_delete=False, list_after=False, clock_skew=skew
        )
        trials: dict[str, Callable[[], str]] = {
            "conditional_put": lambda: _conditional_put(store, home),
            "ranged_get": lambda: _ranged_get(store, home),
            "list_after": lambda: _list_after(store, home),
            "multi_delete": lambda: _multi_delete(store, home),
        }
        for ability, trial in trials.items():
            try:
                wrong = trial()
            except StoreUnavailable:
                raise
            except FailbackError as error:
                wrong = error.message
            notes = (*abilities.notes, f"{ability}: {wrong}") if wrong else abilities.notes
            abilities = replace(abilities, notes=notes, **{ability: not wrong})
        return abilities
    finally:
        _clean(store, home)


def clock_skew(store: Store, key: str) -> float:
    """Seconds by which the store's clock is ahead of ours: from the time it gives to an object put at `key`.

    Good to about a second (S3 tells whole seconds), plus the time of one request.
    """
    before = datetime.now(UTC)
    store.put(key, b"failback")
    after = datetime.now(UTC)
    info = store.head(key)
    if info is None:
        raise StoreError(
            f"{key} was stored in {store.name} and is absent a moment later",
            remedy="failback needs a store with read-after-write consistency",
        )
    if before.replace(microsecond=0) <= info.modified <= after:
        return 0.0
    return round((info.modified - (before + (after - before) / 2)).total_seconds(), 1)


def _conditional_put(store: Store, home: str) -> str:
    """Racing creators of one key: exactly one may win, and its bytes must be there."""
    from concurrent.futures import ThreadPoolExecutor  # 20 ms that only a probe needs to pay

    with ThreadPoolExecutor(RACERS) as pool:
        for round_ in range(ROUNDS):
            key = f"{home}/race{round_}"
            start = Barrier(RACERS)

            def create(racer: int, key: str = key, start: Barrier = start) -> bool | None:
                start.wait(timeout=60)
                try:
                    store.put(key, b"%d" % racer, create=True)
                except AlreadyExists:
                    return False
                except StoreUnavailable:
                    return None  # a conflict among creators may be answered with "try again"
                return True

            answers = list(pool.map(create, range(RACERS)))
            winners = [racer for racer, won in enumerate(answers) if won]
            if len(winners) > 1:
                return f"{len(winners)} of {RACERS} racing creators won"
            if winners and bytes(store.get(key)) != b"%d" % winners[0]:
                return "the object is not the one of the creator that won"
            try:
                store.put(key, b"again", create=True)
            except AlreadyExists:
                continue
            if winners or bytes(store.get(key)) != b"again":
                return "a create-only put replaced an object"
    return ""


def _ranged_get(store: Store, home: str) -> str:
    key = f"{home}/range"
    store.put(key, bytes(range(256)))
    return "" if bytes(store.get_range(key, 100, 50)) == bytes(range(100, 150)) else "wrong bytes"


def _list_after(store: Store, home: str) -> str:
    keys = [f"{home}/list{letter}" for letter in "abc"]
    for key in keys:
        store.put(key, b"x")
    found = [info.key for info in store.list(f"{home}/list", after=keys[0])]
    return "" if found == keys[1:] else f"wrong listing: {found}"


def _multi_delete(store: Store, home: str) -> str:
    keys = [f"{home}/delete{letter}" for letter in "abc"]
    for key in keys[:2]:
        store.put(key, b"x")
    store.delete_many(keys)
    left = [info.key for info in store.list(f"{home}/delete")]
    return f"still there: {left}" if left else ""


def _clean(store: Store, home: str) -> None:
    """Best effort: an exporter's role may not delete, and the error of the probe itself must not be hidden."""
    try:
        store.delete_many([info.key for info in store.list(f"{home}/")])
    except FailbackError:
        return
