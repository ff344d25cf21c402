"""The promises of `pipeline.store.base`, kept by every backend and by the layers around one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import pytest
from backends import BACKENDS, open_backend

from pipeline.errors import AlreadyExists, CorruptObject, NotFound, UsageError
from pipeline.store.base import MAX_KEY, ObjectInfo, Store
from pipeline.store.limit import LimitStore
from pipeline.store.retry import RetryStore
from pipeline.store.trace import Tally, TraceStore


@pytest.fixture(params=[*BACKENDS, "layers"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    layers = request.param == "layers"
    opened = open_backend(request, "memory" if layers else request.param, tmp_path, monkeypatch)
    if layers:
        opened = RetryStore(LimitStore(TraceStore(opened, Tally()), parallel=2, upload=1e9, download=1e9))
    yield opened
    opened.close()


def keys(store: Store, prefix: str = "", after: str = "") -> list[str]:
    return [info.key for info in store.list(prefix, after=after)]


def test_what_was_put_is_what_is_got(store: Store) -> None:
    store.put("packs/ab/one", b"content")
    assert bytes(store.get("packs/ab/one")) == b"content"


def test_a_put_replaces_the_whole_object(store: Store) -> None:
    store.put("a", b"a long first version")
    store.put("a", b"short")
    assert bytes(store.get("a")) == b"short"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert bytes(store.get("empty")) == b""
    info = store.head("empty")
    assert info is not None
    assert info.size == 0
    assert keys(store) == ["empty"]


def test_an_object_of_the_size_of_a_pack_comes_back_bit_for_bit(store: Store) -> None:
    data = numpy.random.default_rng(1).bytes(8 << 20)
    store.put("big", data, create=True)
    assert bytes(store.get("big")) == data
    assert bytes(store.get_range("big", 5 << 20, 70_000)) == data[5 << 20 : (5 << 20) + 70_000]


@pytest.mark.parametrize(
    "buffer",
    [
        b"12345678",
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(bytearray(b"x12345678x"))[1:9],
        memoryview(b"12345678").cast("Q"),
        memoryview(b"12345678").cast("B", (2, 4)),
        numpy.frombuffer(b"12345678", dtype=numpy.uint16).data,
    ],
    ids=["bytes", "bytearray", "memoryview", "slice", "words", "rows", "numpy"],
)
def test_any_contiguous_buffer_can_be_put(store: Store, buffer: bytes) -> None:
    store.put("a", buffer)
    assert bytes(store.get("a")) == b"12345678"


def test_a_buffer_with_gaps_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="contiguous"):
        store.put("a", memoryview(b"12345678")[::2])
    assert store.head("a") is None


def test_a_buffer_may_be_reused_after_the_put(store: Store) -> None:
    buffer = bytearray(b"first")
    store.put("a", buffer)
    buffer[:] = b"other"
    assert bytes(store.get("a")) == b"first"


def test_what_is_got_is_a_read_only_view(store: Store) -> None:
    store.put("a", b"12345678")
    for view in (store.get("a"), store.get_range("a", 2, 4)):
        assert isinstance(view, memoryview)
        assert view.readonly
        assert view.format == "B"
        assert view.ndim == 1


def test_a_create_only_put_never_replaces(store: Store) -> None:
    store.put("a", b"first", create=True)
    with pytest.raises(AlreadyExists, match="a already exists"):
        store.put("a", b"second", create=True)
    assert bytes(store.get("a")) == b"first"


def test_a_key_can_be_created_again_after_its_deletion(store: Store) -> None:
    store.put("a", b"first", create=True)
    store.delete_many(["a"])
    store.put("a", b"second", create=True)
    assert bytes(store.get("a")) == b"second"


def test_exactly_one_of_many_racing_creators_wins(store: Store) -> None:
    racers = 8
    for round_ in range(10):
        start = threading.Barrier(racers)

        def create(racer: int, key: str = f"race/{round_}", start: threading.Barrier = start) -> bool:
            start.wait(timeout=30)
            try:
                store.put(key, b"%d" % racer * 1000, create=True)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(racers) as pool:
            won = list(pool.map(create, range(racers)))
        assert won.count(True) == 1
        assert bytes(store.get(f"race/{round_}")) == b"%d" % won.index(True) * 1000


def test_a_reader_sees_one_version_or_the_other_never_a_mixture(store: Store) -> None:
    size = 1 << 20
    versions = [bytes([letter]) * size for letter in b"ab"]
    store.put("a", versions[0])
    stop = threading.Event()

    def write() -> None:
        for turn in range(20):
            store.put("a", versions[turn % 2])
        stop.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not stop.is_set() and not writing.done():
            assert bytes(store.get("a")) in versions
        writing.result()


def test_a_range_is_exactly_what_was_asked_for(store: Store) -> None:
    store.put("a", bytes(range(100)))
    assert bytes(store.get_range("a", 0, 100)) == bytes(range(100))
    assert bytes(store.get_range("a", 10, 5)) == bytes(range(10, 15))
    assert bytes(store.get_range("a", 99, 1)) == b"\x63"
    assert bytes(store.get_range("a", 50, 0)) == b""


@pytest.mark.parametrize(("offset", "length"), [(0, 101), (90, 11), (100, 1), (5000, 10)])
def test_a_range_past_the_end_is_a_corrupt_object(store: Store, offset: int, length: int) -> None:
    store.put("a", bytes(100))
    with pytest.raises(CorruptObject, match=r"a in .* short"):
        store.get_range("a", offset, length)


def test_a_range_of_an_empty_object_is_a_corrupt_object(store: Store) -> None:
    store.put("a", b"")
    with pytest.raises(CorruptObject):
        store.get_range("a", 0, 1)


def test_an_absent_object_is_not_found(store: Store) -> None:
    store.put("folder/there", b"x")
    for key in ("absent", "folder/absent", "absent/absent", "folder"):
        assert store.head(key) is None
        with pytest.raises(NotFound, match=key):
            store.get(key)
        with pytest.raises(NotFound, match=key):
            store.get_range(key, 0, 1)
        with pytest.raises(NotFound, match=key):
            store.get_range(key, 0, 0)


def test_head_tells_size_and_the_time_of_the_put(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.put("a", b"12345")
    info = store.head("a")
    assert info is not None
    assert (info.key, info.size) == ("a", 5)
    assert info.modified.utcoffset() == timedelta(0)
    assert before <= info.modified <= datetime.now(UTC) + timedelta(seconds=2)


def test_a_listing_agrees_with_head(store: Store) -> None:
    store.put("a/b", b"12345")
    (info,) = store.list("")
    head = store.head("a/b")
    assert head is not None
    assert (info.key, info.size) == (head.key, head.size)
    assert abs(info.modified - head.modified) < timedelta(seconds=1.1)


ODD = ["a%41", "a-b", "a.b/c", "a/b", "a/c/d", "a0", "aB/x", "a_", "ab", "a~", "b/a-b", "b/a/c", "c"]


def test_a_listing_is_in_key_order_of_plain_strings(store: Store) -> None:
    for key in reversed(ODD):
        store.put(key, b"x")
    assert sorted(ODD) == ODD
    assert keys(store) == ODD


def test_a_prefix_is_a_plain_string_prefix(store: Store) -> None:
    for key in ODD:
        store.put(key, b"x")
    for prefix in ("a", "a/", "a/c", "a/c/", "b/a", "b/a/", "ab", "a.", "a%", "nothing", "c/", "a/b"):
        assert keys(store, prefix) == [key for key in ODD if key.startswith(prefix)]


def test_a_listing_goes_on_behind_a_key(store: Store) -> None:
    for key in ODD:
        store.put(key, b"x")
    for prefix in ("", "a", "a/", "b/"):
        for after in (*ODD, "a", "a/", "a/bb", "Z", "zzz", "b/a"):
            assert keys(store, prefix, after) == [key for key in ODD if key.startswith(prefix) and key > after]


def test_a_listing_of_more_than_one_page_is_complete(store: Store) -> None:
    expected = sorted(f"packs/{number % 7:02x}/{number:05d}" for number in range(2100))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), expected))
    assert keys(store, "packs/") == expected
    assert keys(store, "packs/03/") == [key for key in expected if key.startswith("packs/03/")]
    assert keys(store, "packs/", after=expected[1042]) == expected[1043:]
    store.delete_many(expected)
    assert keys(store) == []


def test_nothing_there_is_an_empty_listing(store: Store) -> None:
    assert keys(store) == []
    assert keys(store, "a/b/") == []


def test_a_listing_may_be_left_early(store: Store) -> None:
    for number in range(5):
        store.put(f"a/{number}", b"x")
    assert next(store.list("a/")).key == "a/0"


def test_objects_may_be_read_and_deleted_while_listing(store: Store) -> None:
    for number in range(20):
        store.put(f"a/{number:02d}", b"x")

    def consume(info: ObjectInfo) -> str:
        assert bytes(store.get(info.key)) == b"x"
        store.delete_many([info.key])
        return info.key

    assert [consume(info) for info in store.list("a/")] == [f"a/{number:02d}" for number in range(20)]
    assert keys(store) == []


def test_deleting_takes_any_iterable_and_absent_keys_are_no_error(store: Store) -> None:
    store.put("a", b"x")
    store.put("b/c", b"x")
    store.put("b/d", b"x")
    store.delete_many(key for key in ("a", "absent", "b/c", "absent/absent", "b"))
    assert keys(store) == ["b/d"]
    store.delete_many([])
    store.delete_many(["a"])
    assert keys(store) == ["b/d"]


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", ".hidden", "a/.nfs01", "a b", "a\n", "a\\b", "ä", "a?b",
     "a#b", "x" * (MAX_KEY + 1)],
)  # fmt: skip
def test_an_invalid_key_is_refused_by_every_verb(store: Store, key: str) -> None:
    for verb in (
        lambda: store.put(key, b"x"),
        lambda: store.put(key, b"x", create=True),
        lambda: store.get(key),
        lambda: store.get_range(key, 0, 1),
        lambda: store.head(key),
        lambda: store.delete_many([key]),
    ):
        with pytest.raises(UsageError, match="not a valid object key"):
            verb()


def test_a_long_key_is_taken(store: Store) -> None:
    key = "/".join(["x" * 99] * 8)
    store.put(key, b"x")
    assert keys(store) == [key]


def test_the_name_can_be_shown_to_people(store: Store) -> None:
    assert store.name
    assert "secret" not in f"{store.name}{store!r}{vars(store)}"


def test_what_a_store_can_do_is_found_out_and_nothing_is_left_behind(store: Store) -> None:
    abilities = store.probe()
    assert abilities.conditional_put
    assert abilities.ranged_get
    assert abilities.multi_delete
    assert abilities.list_after
    assert abs(abilities.clock_skew) <= 1
    assert keys(store) == []
