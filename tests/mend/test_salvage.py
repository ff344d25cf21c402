"""When pages or manifests are gone the packs' own tables give back what they can, and what is doubtful is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from transfer.support import CHUNK, Workbench, make_disk, noise, poke

from manifests.manifest import Disk
from manifests.names import manifest_key, page_key
from mend.bench import filled, pack_at, remove
from pipeline.mend.salvage import Choice, Written, choose_for_point, choose_without_point, write_choice
from pipeline.mend.tables import read_tables
from pipeline.writers.raw import create_raw


def salvaged(bench: Workbench, sequence: int, *, lineage: str = "") -> tuple[Choice, Written, bytes]:
    """Of disk 0 of a point; or of a lineage."""
    tables = read_tables(bench.repository)
    if lineage:
        choice = choose_without_point(tables.by_lineage[lineage])
    else:
        disk: Disk = bench.disk(sequence)
        info = bench.store.head(manifest_key("vm", sequence))
        assert info is not None
        stored = tables.by_lineage.get(disk.lineage)
        choice = choose_for_point(bench.repository, disk, stored, tables.packs, info.modified.timestamp())
    path = bench.root / "salvaged.raw"
    path.unlink(missing_ok=True)
    writer = create_raw(str(path), choice.size)
    written = write_choice(bench.repository, choice, tables.packs, writer)
    writer.close()
    return choice, written, path.read_bytes()


def lose(bench: Workbench, sequence: int, what: str) -> None:
    disk = bench.disk(sequence)
    directory = bytes.fromhex(disk.index.pages)
    if what == "directory":
        remove(bench.store, page_key(directory))
    elif what == "segment":
        remove(bench.store, page_key(bytes.fromhex(disk.index.tiers[0].segments[0].id)))
    elif what == "everything":
        bench.store.delete_many([info.key for info in bench.store.list("pages/")])
    else:
        from pipeline.transfer.index_reader import IndexReader

        reader = IndexReader(bench.repository, disk)
        remove(bench.store, page_key(reader.directory[0]))


@pytest.mark.parametrize("what", ["page", "directory", "everything"])
def test_a_point_without_its_pages_is_proved_by_its_digest(bench: Workbench, what: str) -> None:
    disk = filled(bench)
    lose(bench, 1, what)
    choice, written, data = salvaged(bench, 1)
    assert choice.proved
    assert written.unreadable == []
    assert data == disk.read_bytes()


@pytest.mark.parametrize("what", ["page", "directory", "segment", "everything"])
@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_of_several_contents_the_right_one_is_found_by_the_digest(bench: Workbench, what: str, sequence: int) -> None:
    disk = filled(bench)
    images = [disk.read_bytes()]
    for number in (1, 2):
        for position in (15, 16, 40):
            poke(disk, position * CHUNK, noise(CHUNK, (number, position)))
        bench.export(disk)
        images.append(disk.read_bytes())
    if what == "segment" and sequence == 1:
        pytest.skip("the first point has no segment")
    lose(bench, sequence, what)
    choice, _written, data = salvaged(bench, sequence)
    assert choice.proved
    assert data == images[sequence - 1]


def test_what_only_an_index_knew_is_said_to_be_doubtful(bench: Workbench) -> None:
    """A chunk that is at two positions is stored once: the other position is in no table."""
    twice = noise(CHUNK, "twice")
    disk = make_disk(bench.root / "disk", 20 * CHUNK, {2 * CHUNK: twice, 9 * CHUNK: noise(CHUNK, 1), 15 * CHUNK: twice})
    bench.export(disk)
    lose(bench, 1, "page")
    choice, _written, data = salvaged(bench, 1)
    assert not choice.proved
    assert 15 in choice.assumed_zero
    assert 2 not in choice.assumed_zero
    assert data[: 15 * CHUNK] == disk.read_bytes()[: 15 * CHUNK]


def test_without_a_manifest_the_newest_content_is_taken_and_named(bench: Workbench) -> None:
    disk = filled(bench)
    poke(disk, 15 * CHUNK, noise(CHUNK, "new"))
    bench.export(disk)
    lineage = bench.disk().lineage
    bench.store.delete_many([i.key for p in ("manifests/", "pages/", "sessions/") for i in bench.store.list(p)])
    choice, written, data = salvaged(bench, 0, lineage=lineage)
    assert not choice.proved
    assert choice.ambiguous == [15]
    assert choice.assumed_zero == list(range(10))
    assert written.unreadable == []
    assert data == disk.read_bytes()


def test_a_pack_that_is_gone_leaves_its_bytes_named(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    remove(bench.store, key)
    choice, written, data = salvaged(bench, 1)
    assert choice.proved
    assert 20 in written.unreadable
    assert len(data) == len(disk.read_bytes())
    low = 20 * CHUNK
    assert data[low : low + CHUNK] == bytes(CHUNK)


def test_positions_of_relocated_chunks_are_those_of_the_disk(bench: Workbench, tmp_path: Path) -> None:
    from mend.test_repair import from_disk

    disk = filled(bench)
    remove(bench.store, pack_at(bench, 20))
    from_disk(bench, disk)
    lose(bench, 1, "everything")
    choice, written, data = salvaged(bench, 1)
    assert choice.proved
    assert written.unreadable == []
    assert data == disk.read_bytes()
