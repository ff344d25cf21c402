"""What a dead writer left behind may be damaged: it costs time, never the next export."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import SessionHeld
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import FaultyStore, Kill, Rule, startswith
from transfer.killing import in_child
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, same
from transfer.test_sessions import ClockStore

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "noise": lambda data: noise(len(data), 1),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", 2 * MIB + 5, {0: noise(9 * CHUNK, 1), MIB: noise(3 * CHUNK, 2)})


@pytest.fixture
def left(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """An export killed right before its commit: its session and journals stand in the store."""
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    monkeypatch.setattr("pipeline.transfer.send.JOURNAL_BYTES", 1)
    monkeypatch.setattr("os.fsync", lambda _fd: None)
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    rule = Rule(Kill(), verb="put", key=startswith("manifests/"))
    assert in_child(lambda: bench.through(FaultyStore(bench.store, [rule])).export(source))
    return bench


def spoil(bench: Workbench, part: str, damage: str) -> str:
    """Damage the first object of the session with `part` in its key."""
    key = next(info.key for info in bench.store.list("sessions/") if part in info.key)
    bad = DAMAGES[damage](bytes(bench.store.get(key)))
    if bad is None:
        bench.store.delete_many([key])
    else:
        bench.store.put(key, bad)
    return key


def check(bench: Workbench, source: Path) -> None:
    bench.verified()
    bench.check_pack_lists()
    bench.restore()
    assert same(source, bench.restored())


@pytest.mark.parametrize("damage", DAMAGES)
def test_chunks_of_a_damaged_journal_are_sent_again(left: Workbench, source: Path, damage: str) -> None:
    spoil(left, "/journal/", damage)
    result = left.export(source)
    assert 0 < result.disks[0].counters.sent < 9 * CHUNK, "what the other journals hold is not sent again"
    check(left, source)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "gone"])
def test_a_session_that_cannot_be_read_is_given_up_when_it_is_old(left: Workbench, source: Path, damage: str) -> None:
    key = spoil(left, "/session", damage)
    with pytest.raises(SessionHeld, match=key) as caught:
        left.export(source)
    assert "0:15:00 after its last sign" in caught.value.remedy
    assert not list(left.store.list("manifests/"))
    for skew in (timedelta(hours=1), timedelta(hours=-1)):
        young = ClockStore(left.store, skew, timedelta(minutes=14), "sessions/vm/0")  # type: ignore[arg-type]
        with pytest.raises(SessionHeld):
            left.through(young).export(source)
    old = ClockStore(left.store, timedelta(hours=-1), timedelta(minutes=16), "sessions/vm/0")  # type: ignore[arg-type]
    left.through(old).export(source)
    check(left, source)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_end_that_cannot_be_read_is_no_end_but_the_process_is_dead(
    left: Workbench, source: Path, damage: str
) -> None:
    left.store.put("sessions/vm/0000000001-0001/ended", b"what an older export wrote" * 9)
    spoil(left, "/ended", damage)
    left.export(source)
    check(left, source)
