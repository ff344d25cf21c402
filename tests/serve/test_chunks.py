"""What the guest reads is the point's or an error, is fetched once, and takes no more memory than it may."""

from __future__ import annotations

import itertools
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise

from manifests.names import pack_key
from pipeline.errors import CorruptObject, StoreUnavailable
from pipeline.logs import logger
from pipeline.nbd.protocol import NbdError
from pipeline.serve.ahead import ReadAhead
from pipeline.serve.cache import ChunkCache
from pipeline.serve.traffic import Traffic
from pipeline.store.fault import Delay, Fail, FaultyStore, Flip, Rule, startswith
from pipeline.store.memory import MemoryStore
from pipeline.store.retry import Backoff, RetryStore
from serve.tools import SIZE, Gate, client_of, content, exported, listening, read, served


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's records reach the test, also after a command switched them off."""
    monkeypatch.setattr(logger(), "propagate", True)


def view_of(instant: object, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    instant.disk.read_into(offset, memoryview(buffer))  # type: ignore[attr-defined]
    return bytes(buffer)


def test_readers_of_one_chunk_wait_for_one_fetch(bench: Workbench) -> None:
    gate = Gate(bench.store)
    with served(bench.through(gate)) as instant:
        gate.open.clear()
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(view_of, instant, 100 + i, 1000) for i in range(8)]
            assert gate.asked.acquire(timeout=20)
            assert not any(a.done() for a in answers)
            gate.open.set()
            assert [a.result(20) for a in answers] == [content()[100 + i : 1100 + i] for i in range(8)]
        assert len(gate.ranges) == len(set(gate.ranges))
        spans = sorted((o, o + n) for _key, o, n in gate.ranges)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), "bytes were fetched twice"


def test_neighbours_in_the_pack_come_with_the_chunk_that_is_missed(bench: Workbench) -> None:
    gate = Gate(bench.store)
    with served(bench.through(gate)) as instant:
        view_of(instant, 0, 512)
        asked = len(gate.ranges)
        gate.open.clear()
        assert instant.disk.try_read(CHUNK, memoryview(bytearray(CHUNK)))  # needs no fetch
        gate.open.set()
        assert asked == 1


def test_a_sequential_reader_finds_what_it_reads_next(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    data = noise(24 * MIB, 7)
    bench.export(make_disk(tmp_path / "big.raw", len(data), {0: data}))
    gate = Gate(bench.store)
    with served(bench.through(gate)) as instant:
        for offset in range(0, len(data), MIB // 4):
            assert view_of(instant, offset, MIB // 4) == data[offset : offset + MIB // 4]
        assert instant.chunks.counts.fetched < len(data) * 1.02
        assert max(n for _key, _offset, n in gate.ranges) <= 17 * MIB // 16
        assert len(gate.ranges) < 60  # not one request a chunk, of which there are 384


def test_what_does_not_come_from_one_pack_is_fetched_too(bench: Workbench) -> None:
    source = bench.root / "source.raw"
    for turn in range(3):
        with source.open("r+b") as file:
            for position in range(turn, 30, 3):
                file.seek(position * CHUNK + 9)
                file.write(noise(100, (turn, position)))
        bench.export(source)
    with served(bench) as instant:
        assert view_of(instant, 0, SIZE) == source.read_bytes()


def test_the_cache_never_holds_more_than_it_may(bench: Workbench) -> None:
    with served(bench, cache=5 * CHUNK) as instant:
        for offset in [*range(0, SIZE - CHUNK, CHUNK // 2), 0, 3 * MIB, 0, MIB]:
            assert view_of(instant, offset, 5000) == content()[offset : offset + 5000]
            assert instant.chunks.cache.held <= 5 * CHUNK
        assert view_of(instant, 0, SIZE) == content()  # a read that is larger than the cache


def test_a_cache_gives_up_what_was_used_last_the_longest_ago() -> None:
    cache = ChunkCache(3)
    for position in (1, 2, 3):
        cache.put(position, b"x")
    cache.get(1)
    cache.put(4, b"x")
    cache.put(4, b"y")
    assert [cache.get(n) for n in (1, 2, 3, 4)] == [b"x", None, b"x", b"y"]
    assert cache.held == 3


def test_serving_a_large_disk_takes_little_memory(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    data = noise(96 * MIB, 9)
    bench.export(make_disk(tmp_path / "big.raw", len(data), {0: data}))
    with listening(bench, cache=8 * MIB) as (_instant, uri):
        client = client_of(uri)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        buffer = memoryview(bytearray(4 * MIB))
        for offset in range(0, len(data), len(buffer)):
            client.read(offset, buffer)
            assert buffer == data[offset : offset + len(buffer)]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        client.close()
    assert grown < 80 * 1024, f"{grown} KiB for reading 96 MiB"


def flipped(bench: Workbench, position: int) -> Workbench:
    """The chunk at that position is damaged in its pack."""
    _chunk, pack, offset, length = bench.index()[position]
    key = pack_key(pack)
    data = bytearray(bench.store.get(key))
    data[offset + length // 2] ^= 1
    bench.store.put(key, data)
    return bench


def test_a_damaged_chunk_is_an_error_for_the_guest_and_nothing_else_is(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    flipped(bench, 5)
    with listening(bench) as (instant, uri):
        client = client_of(uri, connections=1)
        with pytest.raises(NbdError, match=r"damaged|does not have the content") as caught:
            read(client, 5 * CHUNK + 4096, 4096)
        assert caught.value.code == 5
        for position in (3, 4, 6, 7):  # its neighbours, which came with it
            assert read(client, position * CHUNK, CHUNK) == content()[position * CHUNK : (position + 1) * CHUNK]
        with pytest.raises(NbdError):
            read(client, 0, 10 * CHUNK)
        client.write(5 * CHUNK, [b"w" * CHUNK])  # whole blocks need nothing of it
        assert read(client, 4 * CHUNK, 3 * CHUNK) == (
            content()[4 * CHUNK : 5 * CHUNK] + b"w" * CHUNK + content()[6 * CHUNK : 7 * CHUNK]
        )
        assert instant.chunks.counts.errors >= 1
        client.close()
    logged = [r for r in caplog.records if f"what belongs at byte {5 * CHUNK} cannot be had" in r.getMessage()]
    assert len(logged) == 1


def test_a_lost_pack_is_an_error_too(bench: Workbench) -> None:
    key = pack_key(bench.index()[0][1])
    bench.store.delete_many([key])
    with served(bench) as instant, pytest.raises(CorruptObject, match="missing"):
        view_of(instant, 0, 100)


def test_a_store_that_is_down_for_a_while_makes_reads_wait_not_fail(bench: Workbench) -> None:
    down = [Rule(Fail(StoreUnavailable("down")), verb="get_range", nth=1, last=6)]
    store = RetryStore(FaultyStore(bench.store, down), Backoff(first=0.01, longest=0.05))
    with listening(bench.through(store)) as (instant, uri):
        client = client_of(uri)
        assert read(client, 0, SIZE) == content()
        assert instant.chunks.counts.errors == 0
        client.close()


def test_a_store_that_stays_down_is_an_error_until_it_is_back(bench: Workbench) -> None:
    store = FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("down")), verb="get_range", nth=1)])
    with listening(bench.through(store)) as (_instant, uri):
        client = client_of(uri)
        with pytest.raises(NbdError, match="down"):
            read(client, 0, 512)
        assert read(client, 0, SIZE) == content()
        client.close()


def test_wrong_bytes_on_the_line_never_reach_the_guest(bench: Workbench) -> None:
    store = FaultyStore(bench.store, [Rule(Flip(1000), verb="get_range", key=startswith("packs/"), nth=1)])
    with served(bench.through(store)) as instant:
        assert view_of(instant, 0, SIZE) == content()  # asked for again, chunk by chunk


def test_many_clients_see_one_disk(bench: Workbench) -> None:
    slow = FaultyStore(bench.store, [Rule(Delay(0.01), verb="get_range")])
    with listening(bench.through(slow)) as (_instant, uri):
        start = threading.Barrier(6)

        def work(number: int) -> None:
            client = client_of(uri, connections=2)
            start.wait()
            for turn in range(30):
                at = (number * 30 + turn) * 4096 * 8 % (SIZE - 4096 * 8) // 4096 * 4096
                client.write(at // 32768 * 32768 + number * 4096, [bytes([number + 1]) * 4096])
                assert read(client, at // 32768 * 32768 + number * 4096, 4096) == bytes([number + 1]) * 4096
            client.flush()
            client.close()

        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(work, number) for number in range(6)]:
                done.result(60)


def test_read_ahead_follows_readers_and_grows() -> None:
    ahead = ReadAhead(first=8, longest=64)
    assert ahead.missed(100, 101) == 8
    due = [ahead.read(at, at + 1) for at in range(100, 400)]
    asked = [d for d in due if d]
    assert [end - start for start, end in asked[:5]] == [16, 32, 64, 64, 64]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(asked))
    assert asked[0] == (109, 125)
    assert ahead.missed(5000, 5001) == 8  # another reader
    assert ahead.read(300_000, 300_001) is None
    assert ahead.missed(101 + 300, 102 + 300) == 0  # the first goes on


def test_the_background_waits_for_the_guest() -> None:
    traffic = Traffic()
    with traffic.guest():
        assert traffic.busy
        assert not traffic.calm
        assert not traffic.wait_quiet(0.01)
    assert traffic.wait_quiet(20)
    assert not traffic.busy


def test_memory_store_is_untouched_by_serving(tmp_path: Path) -> None:
    store = MemoryStore()
    bench = exported(Workbench(tmp_path, store))
    before = {info.key: info.size for info in store.list("")}
    with served(bench, fill=tmp_path / "out" / "vm-disk0.raw") as instant:
        instant.disk.write(0, b"x" * 100)
        assert instant.fill is not None
        assert instant.fill.finished.wait(30)
    assert {info.key: info.size for info in store.list("")} == before
