"""Another host's controller is believed to be alive as long as it may be, and dead when it is."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from transfer.killing import in_child

from manifests.mail import clock_key
from pipeline.agent import use
from pipeline.agent.use import Onlooker, free_here, used
from pipeline.errors import TargetBusy
from pipeline.store.directory import DirectoryStore

AGENT = "worker-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", create=True)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "use"


class Watch:
    """Seconds since boot, as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_never_was_there_needs_nothing(store: DirectoryStore) -> None:
    assert Onlooker(store, AGENT).over()


def test_it_is_needed_until_the_end_and_everybody_sees_so_at_once(store: DirectoryStore, lock: Path) -> None:
    with used(store, AGENT, lock):
        assert not Onlooker(store, AGENT).over()
        assert not free_here(lock)
    assert Onlooker(store, AGENT).over()
    assert free_here(lock)


def test_it_is_needed_while_one_of_two_commands_needs_it(store: DirectoryStore, lock: Path) -> None:
    with used(store, AGENT, lock):
        with used(store, AGENT, lock):
            pass
        assert not Onlooker(store, AGENT).over()
    assert Onlooker(store, AGENT).over()


def test_a_command_that_fails_lets_go(store: DirectoryStore, lock: Path) -> None:
    with pytest.raises(TargetBusy), used(store, AGENT, lock):
        raise TargetBusy("somebody else")
    assert Onlooker(store, AGENT).over()


def test_signs_of_life_come_again_and_again(store: DirectoryStore, lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "BEAT", 0.01)
    puts = 0
    real = store.put

    def put(key: str, data: bytes, **more: object) -> None:
        nonlocal puts
        puts += key == clock_key(AGENT)
        real(key, data, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "put", put)
    with used(store, AGENT, lock):
        for _ in range(1000):
            if puts > 5:
                break
            use.threading.Event().wait(0.01)
    assert puts > 5


def test_who_is_killed_is_dead_only_after_a_while_without_a_sign(store: DirectoryStore, lock: Path) -> None:
    def doomed() -> None:
        with used(store, AGENT, lock):
            os.kill(os.getpid(), 9)

    assert in_child(doomed)
    watch = Watch()
    onlooker = Onlooker(store, AGENT, boottime=watch)
    assert not onlooker.over()
    watch.now += use.SILENT
    assert not onlooker.over(), "not yet"
    watch.now += 1
    assert onlooker.over()


def test_one_sign_of_life_begins_the_while_anew(store: DirectoryStore) -> None:
    store.put(clock_key(AGENT), use.USED)
    watch = Watch()
    onlooker = Onlooker(store, AGENT, boottime=watch)
    assert not onlooker.over()
    watch.now += use.SILENT
    os.utime(store_file(store), ns=(store_file(store).stat().st_mtime_ns + 10**9,) * 2)
    assert not onlooker.over()
    watch.now += use.SILENT
    assert not onlooker.over()
    watch.now += 1
    assert onlooker.over()


def test_who_was_last_seen_long_ago_is_not_waited_for(store: DirectoryStore) -> None:
    store.put(clock_key(AGENT), use.USED)
    info = store.head(clock_key(AGENT))
    assert info is not None
    past = (info.modified - timedelta(seconds=use.LONG_AGO + 60)).timestamp()
    os.utime(store_file(store), (past, past))
    assert Onlooker(store, AGENT).over()


def store_file(store: DirectoryStore) -> Path:
    [found] = [path for path in Path(store.root).rglob("clock") if path.is_file()]
    return found
