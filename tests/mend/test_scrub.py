"""A scrub finds what is damaged in every kind of object, and names whom it harms."""

from __future__ import annotations

from fractions import Fraction

import pytest
from transfer.support import CHUNK, Workbench, poke

from manifests.names import manifest_key, page_key
from mend.bench import (
    Hurt,
    by_listing,
    by_reading,
    cut,
    filled,
    flip,
    pack_at,
    positions_in,
    remove,
    swap,
)
from mend.large import large_repository
from pipeline.errors import StoreUnavailable
from pipeline.mend.damage import damaged_ids, recorded_damage
from pipeline.mend.listing import scrub_listing
from pipeline.mend.needs import needs_of_all
from pipeline.mend.progress import START, Notebook
from pipeline.mend.scrub import scrub_by_id
from pipeline.store.base import ObjectInfo
from pipeline.store.layer import Layer


def test_a_whole_repository_has_nothing_damaged(bench: Workbench) -> None:
    filled(bench)
    assert by_listing(bench.repository).damages == []
    report, findings = by_reading(bench.repository, bench.state, deep=True)
    assert findings.damages == []
    assert report.objects == len([i for i in bench.store.list("") if i.key.startswith(("packs/", "pages/"))])
    assert report.whole_rounds


HURTS: dict[str, Hurt] = {
    "flipped": lambda store, key: flip(store, key, 5000),
    "flipped in the salt": lambda store, key: flip(store, key, 3),
    "cut": lambda store, key: cut(store, key, 3000),
    "empty": lambda store, key: cut(store, key, 0),
    "missing": remove,
    "swapped": lambda store, key: swap(store, key, next(i.key for i in store.list("packs/") if i.key != key)),
}


@pytest.mark.parametrize("hurt", HURTS)
def test_a_damaged_pack_is_named_down_to_the_ranges_of_every_disk_that_uses_it(bench: Workbench, hurt: str) -> None:
    disk = filled(bench)
    poke(disk, 15 * CHUNK, b"changed")
    bench.export(disk)
    key = pack_at(bench, 20, 1)
    lost = {n: positions_in(bench, key, n) for n in (1, 2)}
    HURTS[hurt](bench.store, key)
    _report, findings = by_reading(bench.repository, bench.state)
    assert [d.key for d in findings.damages] == [key]
    assert len(lost[2]) == len(lost[1]) - 1
    for number, harm in enumerate(findings.harms, start=1):
        assert (harm.point, harm.disk, harm.key) == (f"vm@{number}", 0, key)
        assert sum(length for _o, length in harm.ranges) == len(lost[number]) * CHUNK
        assert all(any(o <= p * CHUNK < o + n for o, n in harm.ranges) for p in lost[number])
    assert len(findings.harms) == 2
    assert damaged_ids(bench.repository) == {bytes.fromhex(key[-64:])}


@pytest.mark.parametrize("hurt", ["cut", "missing"])
def test_a_listing_finds_what_is_gone_or_cut_short(bench: Workbench, hurt: str) -> None:
    filled(bench)
    key = pack_at(bench, 20)
    HURTS[hurt](bench.store, key)
    findings = by_listing(bench.repository)
    assert [(d.key, d.problem) for d in findings.damages] == [(key, "missing" if hurt == "missing" else "size")]
    assert [h.point for h in findings.harms] == ["vm@1"]


@pytest.mark.parametrize("which", ["directory", "page", "pack list"])
@pytest.mark.parametrize("hurt", ["flipped in the salt", "missing", "empty"])
def test_damaged_index_objects_are_found_and_named(bench: Workbench, which: str, hurt: str) -> None:
    filled(bench)
    disk = bench.disk()
    directory = bytes.fromhex(disk.index.pages)
    listed = [bytes.fromhex(p) for p in disk.packs]
    page = next(
        bytes.fromhex(i.key[-64:])
        for i in bench.store.list("pages/")
        if bytes.fromhex(i.key[-64:]) not in (directory, *listed)
    )
    key = page_key({"directory": directory, "page": page, "pack list": listed[0]}[which])
    HURTS[hurt](bench.store, key)
    _report, findings = by_reading(bench.repository, bench.state)
    assert key in {d.key for d in findings.damages}
    harm = next(h for h in findings.harms if h.key == key)
    assert harm.bytes == (0 if which == "pack list" else disk.size)
    assert recorded_damage(bench.repository)[0].key == key


def test_a_damaged_segment_harms_the_positions_it_spoke_of(bench: Workbench) -> None:
    disk = filled(bench)
    poke(disk, 15 * CHUNK, b"changed")
    poke(disk, 18 * CHUNK, b"changed")
    bench.export(disk)
    [tier] = bench.disk().index.tiers
    key = page_key(bytes.fromhex(tier.segments[0].id))
    flip(bench.store, key, 200)
    _report, findings = by_reading(bench.repository, bench.state)
    assert [(h.point, h.ranges) for h in findings.harms] == [("vm@2", [(15 * CHUNK, 4 * CHUNK)])]


@pytest.mark.parametrize("hurt", ["flipped in the salt", "empty"])
def test_a_damaged_manifest_is_named(bench: Workbench, hurt: str) -> None:
    filled(bench)
    key = manifest_key("vm", 1)
    HURTS[hurt](bench.store, key)
    for findings in (by_reading(bench.repository, bench.state)[1], by_listing(bench.repository)):
        assert [d.key for d in findings.damages] == [key]


def test_deep_finds_a_chunk_that_was_wrong_before_it_was_named(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack whose bytes match its name, of a writer whose memory had failed."""
    from manifests.pack import PackBuilder

    add = PackBuilder.add

    def bad(self: PackBuilder, position: int, chunk_id: bytes, packed: bytes, flags: int) -> tuple[int, int, int]:
        return add(self, position, chunk_id, bytes([packed[0] ^ 1]) + packed[1:] if position == 30 else packed, flags)

    monkeypatch.setattr(PackBuilder, "add", bad)
    filled(bench)
    assert by_reading(bench.repository, bench.state)[1].damages == []
    _report, findings = by_reading(bench.repository, bench.state, deep=True)
    assert [(d.key, d.problem) for d in findings.damages] == [(pack_at(bench, 30), "content")]


def test_thirty_runs_of_a_thirtieth_see_every_object_once(bench: Workbench) -> None:
    filled(bench, chunks=600)
    all_objects = len([i for i in bench.store.list("") if i.key.startswith(("packs/", "pages/"))])
    seen = 0
    for number in range(30):
        report, _ = by_reading(bench.repository, bench.state, share=Fraction(1, 30))
        seen += report.objects
        assert report.whole_rounds == (number == 29)
    assert seen == all_objects
    assert by_reading(bench.repository, bench.state, share=Fraction(1, 30))[0].first == START


def test_runs_of_so_many_bytes_see_every_object_once_on_whatever_host(bench: Workbench) -> None:
    filled(bench, chunks=600)
    all_objects = len([i for i in bench.store.list("") if i.key.startswith(("packs/", "pages/"))])
    seen = runs = 0
    while True:
        state = bench.root / f"host{runs % 2}"
        report, _ = by_reading(bench.repository, state, share=None, most=9 << 20)
        seen, runs = seen + report.objects, runs + 1
        if report.whole_rounds:
            break
    assert (seen, runs > 2) == (all_objects, True)


def test_a_scrub_that_was_cut_off_goes_on_where_it_was(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(bench, chunks=600)
    monkeypatch.setattr("pipeline.mend.scrub._SAVE_SECONDS", 0.0)
    keys = sorted(
        (i.key for i in bench.store.list("") if i.key.startswith(("packs/", "pages/"))), key=lambda k: k[-64:]
    )
    read: list[str] = []

    class Recorder(Layer):
        def get(self, key: str) -> memoryview:
            if key.startswith(("packs/", "pages/")):
                if len(read) == len(keys) // 2:
                    raise StoreUnavailable("the store is gone")
                read.append(key)
            return super().get(key)

    notebook = Notebook(bench.state, bench.repository.document.id, "id", bench.repository)
    with pytest.raises(StoreUnavailable):
        scrub_by_id(Recorder(bench.store), notebook, share=Fraction(1), most=None, parallel=1)
    report = scrub_by_id(bench.store, notebook, share=Fraction(1), most=None, parallel=1)
    # What was read and not yet taken (one on its way, one waiting) is read again.
    assert len(keys) - len(read) <= report.objects <= len(keys) - len(read) + 2
    assert report.first > START


def test_without_a_key_damage_is_found_and_only_the_state_folder_remembers(bench: Workbench) -> None:
    filled(bench)
    key = pack_at(bench, 20)
    flip(bench.store, key, 9000)
    before = [i.key for i in bench.store.list("")]
    notebook = Notebook(bench.state, bench.repository.document.id, "id", None)
    report = scrub_by_id(bench.store, notebook, share=Fraction(1, 1), most=None)
    assert [d.key for d in report.damages] == [key]
    assert [i.key for i in bench.store.list("")] == before
    assert notebook.begin().first == START


def test_a_record_is_cleared_when_its_object_is_right_again(bench: Workbench) -> None:
    filled(bench)
    key = pack_at(bench, 20)
    good = bytes(bench.store.get(key))
    flip(bench.store, key, 9000)
    by_reading(bench.repository, bench.state)
    assert damaged_ids(bench.repository)
    bench.store.put(key, good)
    by_reading(bench.repository, bench.state)
    assert not damaged_ids(bench.repository)


def test_ten_tebibytes_are_scrubbed_by_listing_in_few_requests() -> None:
    """Packs and pages as a store of 1,000 keys a page lists them; points and pack lists as they are read."""
    repository, store = large_repository(tebibytes=10, points=30)
    report = scrub_listing(store, needs_of_all(repository))
    assert report.damages == []
    assert report.objects >= 1_310_720 + 40_960
    assert store.requests <= 1500


def test_an_error_of_the_store_is_never_taken_for_damage(bench: Workbench) -> None:
    filled(bench)

    class Broken(Layer):
        def head(self, key: str) -> ObjectInfo | None:
            raise StoreUnavailable("no answer")

    needs = needs_of_all(bench.repository)
    remove(bench.store, pack_at(bench, 20))
    with pytest.raises(StoreUnavailable):
        scrub_listing(Broken(bench.store), needs)
