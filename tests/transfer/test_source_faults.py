"""Bad sectors are recorded and heal; a disk that changes while it is read gives no point."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from nbd.tools import loop, needs_root, run

from manifests.entry import FLAG_UNREADABLE, PackTable
from pipeline.errors import FailbackError, SourceChanged, Unreadable
from pipeline.exporters import files
from pipeline.exporters.base import Extent
from pipeline.progress import Counters
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import FaultyStore, Kill, Rule, startswith
from pipeline.transfer.export_request import ChangedBlocks
from pipeline.transfer.index_reader import IndexReader
from transfer.killing import in_child
from transfer.support import CHUNK, MIB, FakeDisk, Workbench, make_disk, noise, poke

DATA = noise(6 * CHUNK, 1)
SIZE = 2 * MIB + 100
BAD = [(CHUNK + 512, 1024), (3 * CHUNK, CHUNK), (MIB, 4096)]


def disk(bad: list[tuple[int, int]], extra: dict[int, bytes] | None = None, **more: object) -> FakeDisk:
    return FakeDisk(SIZE, {0: DATA, **(extra or {})}, bad=bad, **more)  # type: ignore[arg-type]


def content(bad: list[tuple[int, int]]) -> bytes:
    whole = bytearray(DATA + bytes(SIZE - len(DATA)))
    for offset, length in bad:
        whole[offset : offset + length] = bytes(length)
    return bytes(whole)


def flagged(bench: Workbench) -> set[int]:
    """Positions that the index marks as unreadable."""
    reader = IndexReader(bench.repository, bench.disk(), PackTable())
    found = set()
    for number in range(reader.directory.count):
        rows = reader.page(number)
        found |= {i for i in range(len(rows)) if rows[i]["flags"] & FLAG_UNREADABLE}
    for positions, rows in reader.blocks(reader.disk.index.tiers):
        for position, row in zip(positions.tolist(), rows, strict=True):
            (found.add if row["flags"] & FLAG_UNREADABLE else found.discard)(position)
    return found


def test_an_unreadable_sector_stops_an_export_and_is_named(bench: Workbench) -> None:
    with pytest.raises(Unreadable) as caught:
        bench.export(disk(BAD))
    assert (caught.value.offset, caught.value.length) in [*BAD, (CHUNK + 512, 1024)]
    assert not list(bench.store.list("manifests/"))
    bench.export(disk([]))


def test_kept_going_it_is_recorded_and_restores_as_zeros(bench: Workbench) -> None:
    result = bench.export(disk(BAD), keep_going=True)
    assert sorted(result.disks[0].unreadable) == BAD
    assert bench.disk().unreadable == tuple(BAD)
    assert flagged(bench) == {1, 3, 16}
    bench.restore()
    assert bench.restored().read_bytes() == content(BAD)
    bench.verified()
    bench.check_pack_lists()


@pytest.mark.parametrize("how", ["scan", "changes"])
def test_the_next_export_after_the_repair_heals_it(bench: Workbench, how: str) -> None:
    bench.export(disk(BAD), keep_going=True)
    result = bench.export(disk([]), changes=ChangedBlocks(1, ()) if how == "changes" else None)
    assert result.disks[0].unreadable == []
    assert bench.disk().unreadable == ()
    assert flagged(bench) == set()
    bench.restore()
    assert bench.restored().read_bytes() == content([])
    bench.verified()
    bench.check_pack_lists()


@pytest.mark.parametrize("how", ["scan", "changes"])
def test_what_stays_unreadable_stays_recorded(bench: Workbench, how: str) -> None:
    bench.export(disk(BAD), keep_going=True)
    bench.export(disk(BAD), keep_going=True, changes=ChangedBlocks(1, ()) if how == "changes" else None)
    assert bench.disk().unreadable == tuple(BAD)
    bench.restore()
    assert bench.restored().read_bytes() == content(BAD)


def test_a_sector_that_goes_bad_later_is_recorded(bench: Workbench) -> None:
    bench.export(disk([]))
    bench.export(disk(BAD), keep_going=True)
    assert bench.disk().unreadable == tuple(BAD)
    assert flagged(bench) == {1, 3, 16}
    bench.restore()
    assert bench.restored().read_bytes() == content(BAD)
    bench.restore(1)
    assert bench.restored().read_bytes() == content([])


def test_many_bad_sectors_in_a_row_and_at_the_end(bench: Workbench) -> None:
    bad = [(i * 1024, 512) for i in range(100)] + [(SIZE - 100, 100)]
    bench.export(disk(bad), keep_going=True)
    bench.restore()
    assert bench.restored().read_bytes() == content(bad)
    assert bench.disk().unreadable == tuple(bad)


def test_what_is_unreadable_is_recorded_also_when_an_export_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk around a bad sector was journaled by the attempt that was killed."""
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    monkeypatch.setattr("pipeline.transfer.send.JOURNAL_BYTES", 1)
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    rule = Rule(Kill(), verb="put", key=startswith("manifests/"))

    def killed() -> None:
        bench.through(FaultyStore(bench.store, [rule])).export(disk(BAD, identity="snapshot 1"), keep_going=True)

    assert in_child(killed)
    result = bench.export(disk(BAD, identity="snapshot 1"), keep_going=True)
    assert result.resumed
    assert bench.disk().unreadable == tuple(BAD)
    bench.restore()
    assert bench.restored().read_bytes() == content(BAD)


def test_an_error_of_the_medium_is_found_to_the_sector(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the raw exporter: the kernel says EIO for a whole read, sectors tell where."""
    source = make_disk(tmp_path / "source", SIZE, {0: DATA})
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        length = sum(map(len, buffers))
        mine = os.path.samestat(os.fstat(fd), source.stat())
        if mine and offset < CHUNK + 1024 and offset + length > CHUNK + 512:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers, offset, *flags)

    monkeypatch.setattr(files.os, "preadv", failing)
    with pytest.raises(Unreadable, match=f"at {CHUNK + 512}"):
        bench.export(source)
    bench.export(source, keep_going=True)
    assert bench.disk().unreadable == ((CHUNK + 512, 512),)
    monkeypatch.undo()
    bench.restore()
    assert bench.restored().read_bytes() == content([(CHUNK + 512, 512)])


@pytest.mark.parametrize("keep_going", [False, True], ids=["", "keep going"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
@pytest.mark.parametrize("change", ["grows", "shrinks", "is written"])
def test_a_disk_that_changes_while_it_is_read_gives_no_point(
    bench: Workbench, tmp_path: Path, change: str, full: bool, keep_going: bool
) -> None:
    """What lies behind a new end is no bad sector either."""
    source = make_disk(tmp_path / "source", 20 * MIB, {i * MIB: noise(MIB, i) for i in range(0, 20, 2)})
    bench.export(source)
    done: list[int] = []

    def meanwhile(_counters: Counters) -> None:
        if not done:
            done.append(1)
            if change == "is written":
                poke(source, 19 * MIB, b"late")
            else:
                os.truncate(source, 21 * MIB if change == "grows" else MIB)

    with pytest.raises(SourceChanged) as caught:
        bench.export(source, full=full, keep_going=keep_going, watch=meanwhile)
    assert str(source) in caught.value.message
    assert caught.value.remedy
    assert bench.point().manifest.sequence == 1
    bench.export(source)
    bench.verified()


@needs_root
@pytest.mark.parametrize("size", [10 * MIB, 30 * MIB], ids=["shrinks", "grows"])
def test_a_device_that_is_resized_while_it_is_read_gives_no_point(bench: Workbench, tmp_path: Path, size: int) -> None:
    backing = make_disk(tmp_path / "backing", 20 * MIB, {i * MIB: noise(MIB, i) for i in range(0, 20, 2)})
    with loop(backing) as device:
        done: list[int] = []

        def meanwhile(_counters: Counters) -> None:
            if not done:
                done.append(1)
                os.truncate(backing, size)
                run("losetup", "--set-capacity", device)

        with pytest.raises(SourceChanged) as caught:
            bench.export(Path(device), keep_going=True, watch=meanwhile)
        assert device in caught.value.message
        assert caught.value.remedy
        assert not list(bench.store.list("manifests/"))
        bench.export(Path(device))
        bench.verified()
        assert bench.disk().size == size


def test_of_two_disks_the_first_may_not_change_while_the_second_is_read(bench: Workbench, tmp_path: Path) -> None:
    disks = [make_disk(tmp_path / f"source{i}", 2 * MIB, {0: noise(MIB, i)}) for i in range(2)]
    done: list[int] = []

    def meanwhile(counters: Counters) -> None:
        if counters.disk == "disk1" and not done:
            done.append(1)
            poke(disks[0], MIB, b"late")

    with pytest.raises(SourceChanged, match="source0"):
        bench.export(*disks, watch=meanwhile)
    assert done
    assert not list(bench.store.list("manifests/"))


def test_a_source_that_lies_about_its_holes_is_not_believed_beyond_its_size(bench: Workbench) -> None:
    class Odd(FakeDisk):
        def extents(self, start: int, end: int):  # type: ignore[no-untyped-def]
            yield Extent(start, CHUNK // 2, False)
            yield Extent(start + CHUNK // 2, 0, True)
            yield Extent(start + CHUNK // 2, end - start - CHUNK // 2, False)

    bench.export(Odd(SIZE, {0: DATA}))
    bench.restore()
    assert bench.restored().read_bytes() == content([])


def test_an_export_without_room_for_its_state_says_so(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_disk(tmp_path / "source", SIZE, {0: DATA})
    bench.state = Path("/proc/1/nowhere")
    with pytest.raises((FailbackError, OSError)):
        bench.export(source)
    assert not list(bench.store.list("manifests/"))
