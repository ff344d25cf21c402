"""What exports write keeps the promises of FORMAT.md that need more than one object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transfer.support import CHUNK, MIB, FakeDisk, Workbench, make_disk, noise, poke

from manifests.envelope import Kind
from manifests.manifest import MAX_UNREADABLE, TIER_SEGMENTS
from manifests.names import tombstone_key
from pipeline.catalogue import forget
from pipeline.errors import NotFound, SessionFenced, StoreUnavailable
from pipeline.store.memory import MemoryStore
from pipeline.transfer import index_writer, pack_lists, process, send
from pipeline.transfer.index_reader import IndexReader, differences
from pipeline.transfer.process import Process
from pipeline.transfer.session import find_attempts


class Breaking(MemoryStore):
    """Fails every put of a pack but the first `packs`."""

    def __init__(self, packs: int) -> None:
        super().__init__()
        self.packs = packs

    def put(self, key: str, data: object, **options: object) -> None:
        if key.startswith("packs/"):
            if not self.packs:
                raise StoreUnavailable("the store broke")
            self.packs -= 1
        super().put(key, data, **options)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A repository in memory."""
    return Workbench(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk", 64 * MIB, {0: noise(40 * MIB, 1)})


def test_packs_of_an_earlier_attempt_are_listed_with_their_length(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "JOURNAL_BYTES", 1)
    store = Breaking(3)
    bench = Workbench(tmp_path, store)
    with pytest.raises(StoreUnavailable):
        bench.export(disk)
    (attempt,) = find_attempts(bench.repository, "vm", 1)
    assert attempt.journals
    store.packs = 100
    result = bench.export(disk)
    assert result.resumed
    assert result.disks[0].counters.deduplicated
    bench.check_pack_lists()
    bench.verified()


def test_packs_of_bases_and_of_a_disk_before_it_was_resized_are_listed_with_their_length(
    bench: Workbench, tmp_path: Path, disk: Path
) -> None:
    bench.export(disk, machine="golden")
    poke(disk, 7 * MIB, noise(MIB, 2))
    result = bench.export(disk, bases=(bench.point(machine="golden"),))
    assert 0 < result.disks[0].counters.sent < 4 * MIB
    bench.check_pack_lists()
    with disk.open("r+b") as file:
        file.truncate(80 * MIB)
    bench.export(disk)
    bench.check_pack_lists()
    poke(disk, 0, noise(20 * MIB, 3))
    bench.export(disk)
    bench.check_pack_lists()
    bench.verified()


def test_the_session_names_its_parent_and_bases_by_hash(bench: Workbench, disk: Path) -> None:
    bench.export(disk, machine="golden")
    bench.export(disk)
    golden, parent = bench.point(machine="golden"), bench.point()
    bench.export(disk, bases=(golden,))
    (attempt,) = find_attempts(bench.repository, "vm", 2)
    assert attempt.document["parent"] == {"sequence": 1, "manifest": parent.object_hash}
    assert attempt.document["bases"] == [{"point": "golden@1", "manifest": golden.object_hash}]


@pytest.mark.parametrize("what", ["parent", "base"])
def test_a_root_forgotten_while_the_session_is_announced_is_noticed(
    bench: Workbench, disk: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    bench.export(disk, machine="golden")
    bench.export(disk)
    lost = bench.point(machine="vm" if what == "parent" else "golden")
    put = bench.store.put

    def forgetting(key: str, data: object, **options: object) -> None:
        if key.endswith("/session"):
            monkeypatch.undo()
            forget(bench.repository, lost, reason="just now")
        put(key, data, **options)  # type: ignore[arg-type]

    bases = (bench.point(machine="golden"),)
    monkeypatch.setattr(bench.store, "put", forgetting)
    with pytest.raises(SessionFenced, match=f"{lost.manifest.label} was forgotten"):
        bench.export(disk, bases=bases)
    with pytest.raises(NotFound):
        bench.store.get("manifests/vm/0000000002")
    assert bench.store.head(tombstone_key(lost.manifest.machine.name, lost.manifest.sequence)) is not None
    if what == "parent":
        result = bench.export(disk)
        assert result.disks[0].mode == "full"
        assert bench.point().manifest.parent is None
        bench.verified()


def test_processes_of_two_containers_of_one_host_do_not_judge_each_other() -> None:
    here = Process.current()
    assert here.alive(here)
    assert replace(here, pid_start=here.pid_start + 1).alive(here) is False
    assert replace(here, pid_start=here.pid_start + 1, pid_namespace="pid:[1]").alive(here) is None


def test_only_a_reboot_of_the_same_machine_means_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on(text: str) -> Process:
        file = tmp_path / "machine-id"
        file.write_text(text)
        monkeypatch.setattr(process, "MACHINE_ID", file)
        return Process.current()

    here, twin = on("0" * 31 + "1\n"), on("0" * 31 + "2\n")
    assert here.machine_id
    assert "0" * 8 not in here.machine_id, "the id itself is confidential"
    rebooted = replace(here, boot_id="before")
    assert rebooted.alive(here) is False
    assert rebooted.alive(twin) is None, "a host of the same name"
    for nothing in ("", "uninitialized\n"):
        unnamed = on(nothing)
        assert unnamed.machine_id == ""
        assert rebooted.alive(unnamed) is None
        assert replace(unnamed, boot_id="before").alive(unnamed) is None
        assert unnamed.alive(unnamed), "this very boot is known all the same"


def test_a_tier_of_many_segments_is_read_through_its_table(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_writer, "SEGMENT_ENTRIES", 4)
    data = noise(3000 * CHUNK // 64, 1)
    disk = make_disk(tmp_path / "sparse", 3000 * CHUNK)
    for i in range(3000):
        poke(disk, i * CHUNK, data[i * 1024 : (i + 1) * 1024])
    bench.export(disk)
    for i in range(0, 1500, 5):
        poke(disk, i * CHUNK, noise(100, i))
    bench.export(disk)
    (tier,) = bench.disk().index.tiers
    assert (tier.count, tier.segments) == (300, ())
    assert tier.table is not None
    for i in range(10):
        poke(disk, i * CHUNK, noise(200, i))
    bench.export(disk, final=True)
    small, shared = bench.disk().index.tiers
    assert small.table is None
    assert len(small.segments) <= TIER_SEGMENTS
    assert shared == tier
    assert len(bench.disk().index.model_dump_json()) < 1000

    read: list[Kind] = []
    get = bench.repository.get_page_object
    monkeypatch.setattr(bench.repository, "get_page_object", lambda kind, raw: read.append(kind) or get(kind, raw))
    old, new = IndexReader(bench.repository, bench.disk(2)), IndexReader(bench.repository, bench.disk(3))
    new.packs = old.packs
    changed = [int(p) for positions, _ in differences(old, new) for p in positions]
    assert changed == list(range(10))
    assert Kind.SEGMENT_TABLE not in read
    assert sum(len(rows) for _, rows in new.windows()) == 3000
    list(new.objects())
    assert read.count(Kind.SEGMENT_TABLE) == 1
    bench.verified()
    bench.restore()
    assert bench.restored().read_bytes() == disk.read_bytes()


def test_a_base_of_several_lists_takes_changes_and_is_written_anew(
    bench: Workbench, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = pack_lists.split_pack_list
    monkeypatch.setattr(pack_lists, "split_pack_list", lambda packs: split(packs, most=2))
    monkeypatch.setattr(index_writer, "MAX_PACK_CHANGES", 2)
    monkeypatch.setattr(index_writer, "SEGMENT_ENTRIES", 64)
    bench.export(disk)
    base = bench.disk()
    assert base.base_lists == len(base.packs) >= 3
    for turn in range(4):
        poke(disk, turn * 9 * MIB, noise(MIB, ("turn", turn)))
        bench.export(disk)
        found = bench.disk()
        assert found.base_lists == base.base_lists
        assert found.packs[: found.base_lists] == base.packs
        bench.check_pack_lists()
    poke(disk, 0, noise(35 * MIB, "most"))
    bench.export(disk)
    assert bench.disk().base_lists == len(bench.disk().packs)
    bench.check_pack_lists()
    bench.verified()


def test_a_dying_disk_still_commits(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.transfer import disk_export

    monkeypatch.setattr(disk_export, "MAX_UNREADABLE", 5)
    assert MAX_UNREADABLE == 65536
    bad = [(i * CHUNK + 1024, 512) for i in range(40)]
    bench.export(FakeDisk(48 * CHUNK, {0: noise(48 * CHUNK, 1)}, bad=bad), keep_going=True)
    found = bench.disk().unreadable
    assert len(found) == 5
    for offset, length in bad:
        assert any(o <= offset and offset + length <= o + n for o, n in found)
    bench.verified()
