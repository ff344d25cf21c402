"""What is written is what is read, for every structure."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.directory import PageDirectory
from manifests.entry import (
    ENTRY,
    FLAG_STORED,
    FLAG_UNREADABLE,
    PackTable,
    Rows,
    empty_rows,
    ids_of,
    is_zero,
    same_ids,
)
from manifests.envelope import Kind, decode_body, encode_body, open_by_id, open_by_place, seal_by_id, seal_by_place
from manifests.errors import CorruptObject, UsageError, WrongRepository
from manifests.machine import Machine, Nic
from manifests.manifest import (
    Disk,
    Index,
    Manifest,
    Parent,
    Segment,
    Tier,
    decode_manifest,
    decode_record,
    encode_record,
)
from manifests.names import encode_machine, manifest_key
from manifests.pack import ChunkDecoder, PackBuilder, read_table
from manifests.packlist import PackUse, add_up, decode_pack_list, encode_pack_list, split_pack_list
from manifests.page import decode_journal, decode_page, decode_segment, encode_journal, encode_page, encode_segment
from manifests.repository import RepositoryDocument
from manifests.sealing import Sealing

from . import make_vectors as made
from . import reader

ids = st.binary(min_size=32, max_size=32)
real_ids = ids.filter(any)
hexes = ids.map(bytes.hex)
usual = settings(deadline=None, max_examples=150)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(texts, json_values, max_size=5)
places = st.tuples(
    st.integers(0, 4), st.integers(128, 15 << 20), st.integers(1, 1 << 20), st.integers(0, 4095), st.integers(0, 3)
)


@st.composite
def entry_lists(draw: st.DrawFn, max_size: int = 40) -> tuple[Rows, PackTable]:
    """Entries, holes among them, of packs that a busy table has numbered in any order."""
    packs = PackTable(draw(st.lists(real_ids, min_size=5, max_size=9, unique=True)))
    drawn = draw(st.lists(st.tuples(real_ids, places) | st.sampled_from([0, FLAG_UNREADABLE]), max_size=max_size))
    rows = empty_rows(len(drawn))
    for i, one in enumerate(drawn):
        if isinstance(one, int):
            rows[i]["flags"] = one
        else:
            rows[i] = (np.frombuffer(one[0], "<u8"), *one[1])
    return rows, packs


def meaning(rows: Rows, packs: PackTable) -> list[tuple[object, ...]]:
    """Entries without the numbers that packs have in this table only."""
    return [
        (r["id"].tobytes(), packs.ids[int(r["pack"])] if r["id"].any() else None, *(int(r[c]) for c in ENTRY.names[2:]))
        for r in rows
    ]


@given(drawn=entry_lists(), page=st.integers(0, (1 << 50) - 1), others=st.lists(real_ids, max_size=3, unique=True))
@usual
def test_pages_round_trip(drawn: tuple[Rows, PackTable], page: int, others: list[bytes]) -> None:
    rows, packs = drawn
    plain = encode_page(page * 4096, rows, packs)
    table = PackTable(others)
    found = (
        decode_page(plain, table, first=page * 4096, count=len(rows), name="page") if len(rows) or not page else None
    )
    if found is not None:
        assert meaning(found, table) == meaning(rows, packs)
        assert encode_page(page * 4096, found, table) == plain
        assert [r["id"] for r in reader.entries(plain, positions=False)["rows"]] == [m[0] for m in meaning(rows, packs)]
        with pytest.raises(CorruptObject):
            decode_page(plain, table, first=page * 4096 + 4096, count=len(rows), name="page")
        with pytest.raises(CorruptObject):
            decode_page(plain, table, first=page * 4096, count=len(rows) + 1, name="page")


@given(data=st.data(), drawn=entry_lists(), disk=st.integers(0, 2**32 - 1))
@usual
def test_segments_and_journals_round_trip(data: st.DataObject, drawn: tuple[Rows, PackTable], disk: int) -> None:
    rows, packs = drawn
    size = len(rows)
    where = np.array(sorted(data.draw(st.sets(st.integers(0, 2**63 - 1), min_size=size, max_size=size))), "<u8")
    plain = encode_segment(where, rows, packs)
    table = PackTable()
    found_where, found = decode_segment(plain, table, name="segment")
    assert found_where.tolist() == where.tolist()
    assert meaning(found, table) == meaning(rows, packs)
    second = reader.entries(plain, positions=True)
    assert [tuple(r.values())[1:] for r in second["rows"]] == meaning(rows, packs)
    lengths = {o: 128 + 1000 * o for o in range(len(packs))}
    plain = encode_journal(disk, where, rows, packs, lengths)
    journal = decode_journal(plain, table, name="journal")
    assert (journal.disk, journal.positions.tolist()) == (disk, where.tolist())
    assert meaning(journal.rows, table) == meaning(rows, packs)
    second = reader.entries(plain, positions=True, journal=True)
    assert (second["disk"], [tuple(r.values())[1:] for r in second["rows"]]) == (disk, meaning(rows, packs))
    used = {packs.ids[o]: lengths[o] for o in set(rows["pack"][~is_zero(rows)].tolist())}
    assert {table.ids[o]: length for o, length in journal.stored.items()} == second["stored"] == used


@given(drawn=entry_lists(), waste=st.integers(1, 255))
@usual
def test_what_a_writer_leaves_in_the_entry_of_a_hole_is_not_written(drawn: tuple[Rows, PackTable], waste: int) -> None:
    rows, packs = drawn
    clean = encode_page(0, rows, packs)
    holes = is_zero(rows)
    for column in ("pack", "offset", "length", "slot"):
        rows[column][holes] = waste
    rows["flags"][holes] |= FLAG_STORED
    assert encode_page(0, rows, packs) == clean


def test_the_largest_page_and_segment_round_trip() -> None:
    rows = empty_rows(16384)
    rows["id"] = np.arange(1, 65537, dtype="<u8").reshape(16384, 4)
    rows["pack"] = np.arange(16384) % 7
    rows["offset"], rows["length"], rows["slot"] = 128, 1, np.arange(16384) % 4096
    packs = PackTable([made.made_id(i) for i in range(7)])
    table = PackTable()
    found = decode_page(encode_page(4096, rows[:4096], packs), table, first=4096, count=4096, name="page")
    assert meaning(found, table) == meaning(rows[:4096], packs)
    where = np.arange(16384, dtype="<u8") * 3
    assert meaning(decode_segment(encode_segment(where, rows, packs), table, name="s")[1], table) == meaning(
        rows, packs
    )


def test_entries_tell_holes_and_equal_chunks() -> None:
    rows, _packs = made.entries()
    assert is_zero(rows).tolist() == [False, False, True, False, True]
    assert same_ids(rows, rows[[0, 0, 2, 3, 2]]).tolist() == [True, False, True, True, True]
    assert ids_of(rows)[:32] == made.made_id(0)


@given(st.dictionaries(ids, st.tuples(st.integers(0, 2**32 - 1), st.integers(-(2**62), 2**62)), max_size=30))
@usual
def test_pack_lists_round_trip(drawn: dict[bytes, tuple[int, int]]) -> None:
    packs = {i: PackUse(*use) for i, use in drawn.items()}
    plain = encode_pack_list(packs)
    assert decode_pack_list(plain, name="list") == packs
    assert reader.pack_list(plain) == [(i, *drawn[i]) for i in sorted(drawn)]


@given(st.lists(st.dictionaries(st.sampled_from([b"a" * 32, b"b" * 32]), st.integers(-9, 9)), max_size=4))
@usual
def test_a_base_and_its_changes_add_up_and_stay_as_they_were(drawn: list[dict[bytes, int]]) -> None:
    lists = [{i: PackUse(5, live) for i, live in one.items()} for one in drawn]
    total = add_up(lists)
    assert {i: u.live for i, u in total.items()} == {
        i: sum(one.get(i, 0) for one in drawn) for one in drawn for i in one
    }
    assert lists == [{i: PackUse(5, live) for i, live in one.items()} for one in drawn]


def test_a_length_that_a_change_leaves_open_is_that_of_an_earlier_list() -> None:
    a, b = b"a" * 32, b"b" * 32
    total = add_up([{a: PackUse(500, 9)}, {a: PackUse(0, -2), b: PackUse(700, 1)}, {a: PackUse(500, 1)}])
    assert total == {a: PackUse(500, 8), b: PackUse(700, 1)}
    with pytest.raises(CorruptObject, match="500 bytes long in one list, 501"):
        add_up([{a: PackUse(500, 1)}, {a: PackUse(501, 1)}])


def test_a_list_of_too_many_packs_is_several_lists() -> None:
    packs = {made.made_id(i): PackUse(i + 1, i) for i in range(11)}
    parts = list(split_pack_list(packs, most=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert max(parts[0]) < min(parts[1])
    assert add_up(parts) == packs
    assert list(split_pack_list({})) == [{}]


@given(positions=st.integers(0, 6 * 4096), drawn=st.lists(ids, min_size=6, max_size=6))
@usual
def test_page_directories_round_trip(positions: int, drawn: list[bytes]) -> None:
    directory = PageDirectory(positions)
    for i in range(directory.count):
        directory[i] = drawn[i]
    plain = directory.encode()
    assert PageDirectory.decode(plain, name="directory").encode() == plain
    assert reader.page_directory(plain) == (positions, drawn[: directory.count])
    assert sum(directory.size_of(i) for i in range(directory.count)) == positions


@given(plain=st.binary(max_size=400) | st.binary(max_size=8).map(lambda b: b * 1000))
@usual
def test_bodies_round_trip(plain: bytes) -> None:
    body = encode_body(plain)
    assert len(body) <= 16 + len(plain)
    assert decode_body(body, name="body") == reader.body(body) == plain


@given(plain=st.binary(max_size=100), kind=st.sampled_from(Kind), repository=st.binary(min_size=16, max_size=16))
@usual
def test_objects_round_trip_in_their_own_repository_only(plain: bytes, kind: Kind, repository: bytes) -> None:
    named, data = seal_by_id(kind, plain, sealing=Sealing(repository))
    assert open_by_id(data, kind, named, sealing=Sealing(repository), name="x") == plain
    assert reader.by_id(data) == (named, kind, plain)
    placed = seal_by_place(kind, plain, sealing=Sealing(repository), key="a/b")
    assert open_by_place(placed, kind, sealing=Sealing(repository), key="a/b") == (kind, plain)
    other = bytes([repository[0] ^ 1]) + repository[1:]
    with pytest.raises(WrongRepository):
        open_by_id(data, kind, named, sealing=Sealing(other), name="x")
    with pytest.raises(WrongRepository):
        open_by_place(placed, kind, sealing=Sealing(other), key="a/b")


def test_an_object_moved_to_another_place_is_refused() -> None:
    placed = seal_by_place(Kind.TOMBSTONE, b"x", sealing=made.SEALING, key="tombstones/web/0000000001")
    with pytest.raises(CorruptObject, match="moved"):
        open_by_place(placed, Kind.TOMBSTONE, sealing=made.SEALING, key="tombstones/web/0000000002")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, b"x", [{"deep": float("-inf")}]])
def test_what_json_cannot_hold_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(ValidationError, match=r"vendor\.x.*JSON|vendor\.x.*keys are text"):
        Machine(name="web", raw={"vendor": {"x": value}})
    with pytest.raises(UsageError, match=r"vendor\.x"):
        encode_record(Kind.SESSION, {"vendor": {"x": value}}, sealing=made.SEALING, key="a")


def test_a_path_that_is_not_utf_8_is_recorded_with_escapes() -> None:
    path = os.fsdecode(b"/dev/\xff")
    disk = made.manifest().disks[0].model_dump() | {"name": path, "serial": path}
    manifest = made.manifest().model_copy(update={"disks": (Disk(**disk),)})
    key = made.KEYS["manifest"]
    found = decode_manifest(manifest.encode(made.SEALING), sealing=made.SEALING, key=key)
    assert found == manifest
    assert found.disks[0].name == found.disks[0].serial == r"/dev/\udcff"
    assert Machine(name="web", raw={"p": [path]}).raw == {"p": [r"/dev/\udcff"]}
    data = encode_record(Kind.SESSION, {path: [path]}, sealing=made.SEALING, key="a")
    assert decode_record(data, Kind.SESSION, sealing=made.SEALING, key="a") == {r"/dev/\udcff": [r"/dev/\udcff"]}


def test_equal_contents_have_two_names() -> None:
    first, second = (seal_by_id(Kind.PAGE, b"same", sealing=made.SEALING) for _ in range(2))
    assert first[0] != second[0]


@given(
    chunks=st.lists(st.tuples(st.integers(0, 2**63), st.binary(min_size=1, max_size=32), st.booleans()), max_size=12),
    lineage=st.binary(min_size=16, max_size=16),
)
@settings(deadline=None, max_examples=60)
def test_packs_round_trip(chunks: list[tuple[int, bytes, bool]], lineage: bytes) -> None:
    builder = PackBuilder(lineage, made.CHUNK, made.SEALING)
    plains, told = [], []
    for position, seed, stored in chunks:
        plain = seed.ljust(made.CHUNK, seed[:1])
        sealed = plain if stored else zstandard.ZstdCompressor(level=1).compress(plain)
        told.append(builder.add(position, blake3(plain).digest(), sealed, FLAG_STORED * stored))
        plains.append(plain)
    named, data = builder.seal()
    assert named == blake3(data).digest()
    table = read_table(data, sealing=made.SEALING, name="pack")
    assert (table.lineage, table.chunk_size) == (lineage, made.CHUNK)
    assert table.positions.tolist() == [c[0] for c in chunks]
    assert list(zip(range(len(chunks)), table.offsets.tolist(), table.lengths.tolist(), strict=True)) == told
    assert table.ids == [blake3(p).digest() for p in plains]
    decoder = ChunkDecoder(made.CHUNK)
    for plain, at, length, flags in zip(plains, table.offsets, table.lengths, table.flags, strict=True):
        assert decoder.decode(memoryview(data)[at : at + length], int(flags), name="chunk") == plain
    assert reader.pack(data)["chunks"] == plains


@given(document=records, kind=st.sampled_from([made.RECORDS[n][0] for n in sorted(made.RECORDS)]))
@usual
def test_records_round_trip(document: dict[str, object], kind: Kind) -> None:
    data = encode_record(kind, document, sealing=made.SEALING, key="a/b")
    assert decode_record(data, kind, sealing=made.SEALING, key="a/b") == document
    assert reader.record(data, "a/b") == (kind, document)


numbers = st.integers(0, 2**62)
segments = st.tuples(st.integers(0, 10**6), st.integers(1, 16384), st.integers(0, 9), hexes)


@st.composite
def tiers(draw: st.DrawFn) -> Tier:
    made_segments, at = [], 0
    for gap, count, loose, segment_id in draw(st.lists(segments, max_size=3)):
        first = at + gap
        at = first + count + loose
        made_segments.append(Segment(id=segment_id, first=first, last=at - 1, count=count))
    return Tier(segments=tuple(made_segments))


tables = st.builds(Tier, table=hexes, count=st.integers(65, 2**40))
indexes = st.builds(Index, pages=hexes, tiers=st.lists(tiers() | tables, max_size=4).map(tuple))
disks = st.builds(
    Disk, number=st.integers(0, 2**31), lineage=st.binary(min_size=16, max_size=16).map(bytes.hex), name=texts,
    size=numbers, sector_size=st.sampled_from([512, 4096]), chunk_size=st.sampled_from([65536 << i for i in range(5)]),
    bus=texts, boot=st.booleans(), serial=texts, source_format=texts, digest=hexes, index=indexes,
    packs=st.lists(hexes, min_size=1, max_size=3).map(tuple), base_lists=st.just(1),
    unreadable=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple),
    change_maps=st.lists(texts, max_size=2).map(tuple), stored_bytes=numbers, live_bytes=numbers, data_bytes=numbers,
)  # fmt: skip


def is_name(text: str) -> bool:
    try:
        encode_machine(text)
    except UsageError:
        return False
    return True


machines = st.builds(
    Machine, name=texts.filter(is_name), firmware=st.sampled_from(["bios", "uefi"]), cpus=st.integers(1, 4096),
    memory_bytes=st.integers(1 << 20, 1 << 50), platform=texts, raw=records,
    nics=st.lists(st.builds(Nic, mac=st.sampled_from(["", "52-54-00-00-00-0A"]), network=texts), max_size=2).map(tuple),
)  # fmt: skip
manifests = st.builds(
    Manifest, machine=machines, sequence=st.integers(1, 9_999_999_999),
    parent=st.none() | st.builds(Parent, sequence=st.integers(1, 9), manifest=hexes), started=texts, time=texts,
    tool=texts, run=texts, consistency=st.sampled_from(["torn", "crash", "filesystem", "application"]),
    final=st.booleans(), set=st.none() | texts,
    disks=st.lists(disks, max_size=2, unique_by=(lambda d: d.number, lambda d: d.lineage)).map(tuple),
)  # fmt: skip


@given(manifest=manifests)
@settings(deadline=None, max_examples=60)
def test_manifests_round_trip(manifest: Manifest) -> None:
    data = manifest.encode(made.SEALING)
    key = manifest_key(manifest.machine.name, manifest.sequence)
    assert decode_manifest(data, sealing=made.SEALING, key=key) == manifest
    assert reader.record(data, key) == (Kind.MANIFEST, manifest.model_dump(mode="json"))


@given(abilities=records, chunk_size=st.sampled_from([65536 << i for i in range(5)]))
@usual
def test_repository_documents_round_trip(abilities: dict[str, object], chunk_size: int) -> None:
    document = RepositoryDocument.new(chunk_size=chunk_size, abilities=abilities)
    assert RepositoryDocument.decode(document.encode()) == document
    assert reader.repository(document.encode())["abilities"] == abilities
