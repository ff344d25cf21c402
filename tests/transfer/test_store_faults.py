"""Whatever the store does, the error names the object and the remedy, and what was committed stays restorable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import manifests.envelope
from pipeline.errors import (
    AccessDenied,
    CorruptObject,
    FailbackError,
    NewerFormat,
    NotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
    WrongRepository,
)
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import Delay, Fail, FaultyStore, Rule, startswith
from pipeline.store.retry import Backoff, RetryStore
from pipeline.transfer.index_reader import IndexReader
from pipeline.verify.listing import verify_listing
from pipeline.verify.reading import verify_reading
from transfer.killing import in_child
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, same, text

SIZE = 2 * MIB + 7
ERRORS = [
    StoreUnavailable("503 slow down", remedy="wait"),
    StoreUnavailable("connection cut", remedy="wait"),
    AccessDenied("403 forbidden", remedy="check the keys"),
    NotFound("404 no such bucket", remedy="check the address"),
    StoreFull("quota", remedy="make room"),
    StoreError("400", remedy="look"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", SIZE, {0: noise(6 * CHUNK, 1), MIB: text(5 * CHUNK, 2)})


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.message)
@pytest.mark.parametrize("prefix", ["packs/", "pages/", "manifests/", "sessions/"])
def test_an_export_that_fails_commits_nothing_and_goes_on(
    tmp_path: Path, source: Path, error: StoreError, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _fd: None)
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    bench.export(source)
    first = source.read_bytes()
    poke(source, 0, noise(3 * CHUNK, 3))
    rule = Rule(Fail(error), verb="put", key=startswith(prefix))

    def failing() -> None:
        with pytest.raises(StoreError) as caught:
            bench.through(FaultyStore(bench.store, [rule])).export(source)
        assert caught.value.remedy

    assert not in_child(failing)
    assert bench.point().manifest.sequence == 1
    bench.restore()
    assert bench.restored().read_bytes() == first
    assert bench.export(source).sequence == 2
    bench.verified()
    bench.check_pack_lists()
    bench.restore()
    assert same(source, bench.restored())


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.message)
@pytest.mark.parametrize("verb", ["get", "get_range", "list", "head"])
def test_an_error_is_never_taken_for_absence(bench: Workbench, source: Path, error: StoreError, verb: str) -> None:
    bench.export(source)
    poke(source, 0, b"two")
    bench.export(source, final=True)
    faulty = FaultyStore(bench.store, [Rule(Fail(error), verb=verb)])
    seen = bench.elsewhere("fresh").through(faulty)
    for action in (
        lambda: seen.restore(1),
        lambda: seen.export(source),
        lambda: verify_listing(seen.repository, bench.point()),
        lambda: verify_reading(seen.repository, bench.point(), parallel=2),
    ):
        before = len(faulty.history)
        problem = outcome(action)
        if verb in [v for v, _ in faulty.history[before:]] and not problem:
            assert isinstance(error, NotFound), "only what is said to be absent may end up as a mere finding"
    bench.restore()
    assert same(source, bench.restored())


def test_trouble_that_passes_is_not_even_noticed(bench: Workbench, source: Path) -> None:
    rules = [
        Rule(Fail(StoreUnavailable("503")), verb="put", nth=2, last=4),
        Rule(Fail(StoreUnavailable("cut")), verb="get_range", nth=1),
        Rule(Fail(StoreUnavailable("cut")), verb="get", nth=1),
        Rule(Fail(StoreUnavailable("cut")), verb="list", nth=1),
        Rule(Delay(0.05), verb="put", nth=5, last=9),
    ]
    bench.through(RetryStore(FaultyStore(bench.store, rules), Backoff(first=0.001, deadline=10))).export(source)
    other = bench.through(RetryStore(FaultyStore(bench.store, rules), Backoff(first=0.001, deadline=10)))
    other.restore()
    assert same(source, bench.restored())


def test_a_slow_store_only_takes_longer(bench: Workbench, source: Path) -> None:
    started = time.monotonic()
    slow = bench.through(FaultyStore(bench.store, [Rule(Delay(0.02))]))
    slow.export(source)
    slow.restore()
    assert same(source, bench.restored())
    assert time.monotonic() - started < 10


def newer(data: bytes) -> bytes:
    return data[:41] + b"\2" + data[42:]


def foreign(data: bytes) -> bytes:
    return data[:48] + bytes(16) + data[64:]


def flipped(data: bytes, at: int) -> bytes:
    copy = bytearray(data)
    copy[at] ^= 8
    return bytes(copy)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "only a header": lambda data: data[:128],
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte longer": lambda data: data + b"\0",
    "flipped at the start": lambda data: flipped(data, 0),
    "flipped in the middle": lambda data: flipped(data, len(data) // 2),
    "flipped at the end": lambda data: flipped(data, -1),
    "zeros": lambda data: bytes(len(data)),
    "newer": newer,
    "of another repository": foreign,
}


def outcome(action: Callable[[], object]) -> str:
    """What an action says is wrong; empty when it succeeded. Damage comes with a remedy."""
    try:
        action()
    except FailbackError as error:
        if not error.remedy:
            pytest.fail(f"without a remedy: {error!r}")
        return error.message
    return ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_object_is_named_and_nothing_wrong_is_restored(
    bench: Workbench, source: Path, damage: str
) -> None:
    bench.export(source)
    kept = source.read_bytes()
    bench.restore(1)
    poke(source, 0, noise(2 * CHUNK, 3))
    poke(source, MIB + 9 * CHUNK, noise(2 * CHUNK, 4))
    bench.export(source, final=True)
    packs_of_first = {pack.hex() for _c, pack, _o, _n in bench.index(1).values()}
    used = {pack.hex() for _c, pack, _o, _n in bench.index(2).values()}
    named = {i.hex() for i in IndexReader(bench.repository, bench.disk(2)).objects()}
    first_named = {i.hex() for i in IndexReader(bench.repository, bench.disk(1)).objects()}
    for info in [*bench.store.list("packs/"), *bench.store.list("pages/"), *bench.store.list("manifests/")]:
        good = bytes(bench.store.get(info.key))
        bad = DAMAGES[damage](good)
        if bad is None:
            bench.store.delete_many([info.key])
        else:
            bench.store.put(info.key, bad)
        name = info.key.rsplit("/", 1)[1]
        fresh = bench.elsewhere(f"fresh-{name[:12]}")
        problems = outcome(lambda f=fresh: f.restore(2))  # type: ignore[misc]
        if not problems:
            assert same(source, fresh.restored())

        def verify(found: list[str]) -> None:
            point = bench.point(2)
            found += verify_listing(bench.repository, point).problems
            found += verify_reading(bench.repository, point, parallel=2).problems

        found: list[str] = []
        problems += outcome(lambda f=found: verify(f)) + "\n".join(found)  # type: ignore[misc]
        if name in used | named or info.key == "manifests/vm/0000000002":
            assert name in problems or "no recovery point 2" in problems or "no usable" in problems
        if name not in packs_of_first | first_named and info.key != "manifests/vm/0000000001":
            older = bench.elsewhere(f"older-{name[:12]}")
            older.restore(1)
            assert older.restored().read_bytes() == kept
        bench.store.put(info.key, good)
    bench.verified()


def test_an_object_of_another_repository_says_so(bench: Workbench, source: Path, tmp_path: Path) -> None:
    bench.export(source)
    other = Workbench(tmp_path / "other")
    other.export(source)
    for prefix in ("pages/", "manifests/"):
        for mine, theirs in zip(bench.store.list(prefix), other.store.list(prefix), strict=True):
            good = bytes(bench.store.get(mine.key))
            bench.store.put(mine.key, other.store.get(theirs.key))
            expected = WrongRepository if prefix == "manifests/" else CorruptObject
            name = mine.key
            fresh = bench.elsewhere("fresh")
            try:
                with pytest.raises(expected, match=name):
                    fresh.restore()
            except pytest.fail.Exception:
                assert "packs" not in prefix  # pack lists are not needed for a restore
                assert same(source, fresh.restored())
            bench.store.put(mine.key, good)


def test_what_a_newer_failback_wrote_says_so(bench: Workbench, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifests.envelope, "_VERSION", 2)
        bench.export(source)
    for action in (bench.restore, lambda: bench.export(source), bench.verified):
        with pytest.raises(NewerFormat, match=r"manifests/vm/0000000001 was written by a newer failback") as caught:
            action()
        assert "upgrade" in caught.value.remedy


def test_a_damaged_newest_manifest_leaves_the_others_restorable(bench: Workbench, source: Path) -> None:
    bench.export(source)
    kept = source.read_bytes()
    poke(source, 0, b"two")
    bench.export(source)
    bench.store.put("manifests/vm/0000000002", b"rubbish")
    with pytest.raises(CorruptObject, match="manifests/vm/0000000002"):
        bench.restore()
    bench.restore(1)
    assert bench.restored().read_bytes() == kept
