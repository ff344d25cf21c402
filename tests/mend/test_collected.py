"""Collections and repairs get along: what stands in for a lost pack lives as long as a point names that pack."""

from __future__ import annotations

from pathlib import Path

import pytest
from collect.support import DAY, Yard
from transfer.support import same

from manifests.names import page_key
from mend.bench import by_listing, pack_at, remove
from mend.test_repair import from_disk
from pipeline.catalogue import forget
from pipeline.errors import CorruptObject
from pipeline.mend.repair import repair
from pipeline.transfer.index_reader import IndexReader


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_relocated_chunks_are_collected_when_no_point_names_the_old_pack(yard: Yard) -> None:
    bench = yard.bench
    bench.export(yard.source)
    key = pack_at(bench, 0)
    remove(yard.store, key)
    from_disk(bench, yard.source)
    [new] = [i.key for i in yard.store.list("packs/")]
    yard.wait(7 * DAY)
    assert not yard.collect().doomed
    bench.restore()
    assert same(bench.restored(), yard.source)
    bench.export(yard.source, full=True)
    forget(yard.repository, bench.point(1), reason="old")
    yard.wait(7 * DAY)
    assert yard.collect().doomed
    assert new not in [i.key for i in yard.store.list("packs/")]
    bench.verified(2)


def test_a_lost_pack_that_nothing_refers_to_stops_no_collection_after_a_repair(yard: Yard) -> None:
    bench = yard.bench
    bench.export(yard.source)
    remove(yard.store, pack_at(bench, 0))
    by_listing(yard.repository)
    bench.export(yard.source)
    forget(yard.repository, bench.point(1), reason="old")
    yard.wait(7 * DAY)
    with pytest.raises(CorruptObject, match="is missing"):
        yard.collect()
    assert repair(yard.repository).left.open == []
    yard.collect()
    bench.verified(2)


def test_a_relocation_record_that_cannot_be_read_stops_a_collection(yard: Yard) -> None:
    bench = yard.bench
    bench.export(yard.source)
    lost = pack_at(bench, 0)
    remove(yard.store, lost)
    from_disk(bench, yard.source)
    [record] = [i.key for i in yard.store.list("relocations/")]
    yard.store.put(record, bytes(yard.store.get(record))[:-1] + b"?")
    yard.wait(7 * DAY)
    with pytest.raises(CorruptObject, match="relocations/"):
        yard.collect()
    assert yard.store.deleted == [lost], "the test itself removed it"


def test_with_an_index_that_cannot_be_read_no_lost_pack_counts_as_unused(yard: Yard) -> None:
    """The lost page may be what refers to it: when it is put back the point still misses the pack."""
    bench = yard.bench
    bench.export(yard.source)
    pack = pack_at(bench, 0)
    reader = IndexReader(yard.repository, bench.disk())
    [page] = [page_key(reader.directory[number]) for number in reader.directory.stored()]
    whole = bytes(yard.store.get(page))
    remove(yard.store, pack)
    remove(yard.store, page)
    assert repair(yard.repository).left.open
    assert not yard.keys("relocations/")
    yard.store.put(page, whole)
    yard.wait(7 * DAY)
    with pytest.raises(CorruptObject, match=pack):
        yard.collect()
