"""Points go from one repository to another: bit for bit, once, and only what changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transfer.support import CHUNK, FakeDisk, Workbench, make_disk, noise, poke, punch, same

from manifests.machine import Machine, Nic
from manifests.names import PointName
from mend.bench import filled, flip, pack_at
from pipeline.catalogue import Point, forget, points, resolve
from pipeline.errors import CorruptObject, UsageError
from pipeline.repository import Repository
from pipeline.store.base import Bytes
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore
from pipeline.transfer.copy import Copied, check_other, copied_points, copy_point, verify_copy
from pipeline.transfer.export_request import ExportOptions
from pipeline.verify.reading import verify_reading


class Other(Workbench):
    """A second repository, filled by copies."""

    def take(self, bench: Workbench, sequence: int | None = None, *, machine: str = "vm", **options: object) -> Copied:
        there = copied_points(self.repository, machine)
        chosen = replace(ExportOptions(state=self.state, uploads=2, workers=2), **options)  # type: ignore[arg-type]
        return copy_point(bench.repository, bench.point(sequence, machine), self.repository, chosen, there=there)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Not encrypted: two rings have two ids for one chunk, and their digests cannot be compared."""
    return Workbench(tmp_path, encrypted=False)


@pytest.fixture
def other(tmp_path: Path) -> Other:
    (tmp_path / "other").mkdir()
    return Other(tmp_path / "other", encrypted=False)


@pytest.mark.parametrize("encrypted", [(True, True), (True, False), (False, True)], ids=str)
def test_other_keys_or_none_give_the_same_bytes_and_reading_proves_it(
    tmp_path: Path, encrypted: tuple[bool, bool]
) -> None:
    (tmp_path / "other").mkdir()
    bench = Workbench(tmp_path, encrypted=encrypted[0])
    other = Other(tmp_path / "other", encrypted=encrypted[1])
    disk = filled(bench)
    copied = other.take(bench)
    assert copied.proof == ""
    poke(disk, 20 * CHUNK, b"changed")
    bench.export(disk)
    again = other.take(bench)
    assert again.result is not None
    assert again.result.disks[0].counters.read == CHUNK
    reports = list(verify_copy(bench.repository, bench.point(), other.repository, again.point, other.state))
    assert [(r.ok, r.ranges) for r in reports] == [(True, [])]
    other.verified()
    other.restore()
    assert same(other.restored(), disk)


def label(point: Point) -> dict[str, object]:
    """What must be the same in the copy."""
    manifest = point.manifest
    disks = [
        (d.number, d.name, d.size, d.sector_size, d.bus, d.boot, d.serial, d.source_format, d.unreadable)
        for d in manifest.disks
    ]
    return {
        "machine": manifest.machine, "started": manifest.started, "time": manifest.time, "final": manifest.final,
        "consistency": manifest.consistency, "disks": disks,
    }  # fmt: skip


def test_a_copy_is_the_same_point_with_the_same_digest(bench: Workbench, other: Other) -> None:
    disk = filled(bench)
    second = make_disk(bench.root / "second", 5 * CHUNK + 1000, {CHUNK: noise(CHUNK, 2), 5 * CHUNK: b"end"})
    machine = Machine(name="vm", firmware="uefi", cpus=4, nics=(Nic(mac="52:54:00:00:00:01"),))
    bench.export(disk, second, hardware=machine, consistency="application", final=True, full=True)
    copied = other.take(bench)
    assert copied.proof == "the digests of all disks are equal"
    assert label(copied.point) == label(bench.point())
    origin = copied.point.manifest.copied_from
    assert origin is not None
    assert (origin.repository, origin.sequence) == (bench.repository.document.id, 2)
    other.verified()
    other.restore()
    assert same(other.restored(0), disk)
    assert same(other.restored(1), second)


@pytest.mark.parametrize("chunk_size", [128 << 10, 1 << 20])
def test_another_chunk_size_gives_the_same_bytes_and_reading_proves_it(
    bench: Workbench, other: Other, chunk_size: int
) -> None:
    disk = filled(bench)
    copied = other.take(bench, chunk_size=chunk_size)
    assert copied.proof == ""
    reports = list(verify_copy(bench.repository, bench.point(), other.repository, copied.point, other.state))
    assert [(r.ok, r.ranges) for r in reports] == [(True, [])]
    other.restore()
    assert same(other.restored(), disk)
    poke(disk, 20 * CHUNK, b"changed")
    punch(disk, 60 * CHUNK, 3 * CHUNK)
    bench.export(disk)
    again = other.take(bench)
    assert again.result is not None
    assert again.result.disks[0].mode == "changed blocks"
    other.restore()
    assert same(other.restored(), disk)


def test_reading_notices_a_copy_that_differs(bench: Workbench, other: Other) -> None:
    disk = filled(bench)
    copied = other.take(bench, chunk_size=128 << 10)
    poke(disk, 20 * CHUNK, b"changed")
    bench.export(disk)
    [report] = verify_copy(bench.repository, bench.point(), other.repository, copied.point, other.state)
    assert report.ranges == [(20 * CHUNK, 128 << 10)]


def test_later_copies_read_and_send_only_what_changed(bench: Workbench, other: Other) -> None:
    disk = filled(bench, chunks=300)
    other.take(bench)
    poke(disk, 15 * CHUNK, b"changed")
    poke(disk, 200 * CHUNK, b"changed")
    bench.export(disk)
    copied = other.take(bench)
    assert copied.result is not None
    [result] = copied.result.disks
    assert result.mode == "changed blocks"
    assert result.counters.read == 2 * CHUNK
    assert result.counters.sent < 4 * CHUNK
    assert copied.proof
    other.verified()


def test_all_points_are_copied_once_in_order_and_incrementally(bench: Workbench, other: Other) -> None:
    disk = filled(bench)
    images = [disk.read_bytes()]
    for number in range(1, 4):
        poke(disk, (20 + number) * CHUNK, noise(CHUNK, number))
        bench.export(disk)
        images.append(disk.read_bytes())
    forget(bench.repository, bench.point(2), reason="test")
    for _twice in range(2):
        for point in points(bench.repository, "vm"):
            other.take(bench, point.manifest.sequence)
    copies = list(points(other.repository, "vm"))
    assert [c.manifest.copied_from.sequence for c in copies if c.manifest.copied_from] == [1, 3, 4]
    for copy, image in zip(copies, (images[0], images[2], images[3]), strict=True):
        other.restore(copy.manifest.sequence)
        assert other.restored().read_bytes() == image


def test_without_the_earlier_original_every_chunk_is_compared(bench: Workbench, other: Other) -> None:
    disk = filled(bench)
    other.take(bench)
    poke(disk, 15 * CHUNK, b"changed")
    bench.export(disk)
    forget(bench.repository, bench.point(1), reason="test")
    copied = other.take(bench)
    assert copied.result is not None
    [result] = copied.result.disks
    assert (result.mode, result.counters.sent < 2 * CHUNK) == ("incremental", True)
    assert copied.proof


def test_what_the_source_could_not_read_is_said_in_the_copy_too(bench: Workbench, other: Other) -> None:
    parts = {CHUNK: noise(3 * CHUNK, 1)}
    bench.export(FakeDisk(8 * CHUNK, parts, bad=[(2 * CHUNK + 512, 1024), (6 * CHUNK, 512)]), keep_going=True)
    copied = other.take(bench)
    assert copied.proof
    assert copied.point.manifest.disks[0].unreadable == ((2 * CHUNK + 512, 1024), (6 * CHUNK, 512))
    bench.export(FakeDisk(8 * CHUNK, parts))
    again = other.take(bench)
    assert again.proof
    assert again.point.manifest.disks[0].unreadable == ()


def test_a_damaged_source_is_not_copied(bench: Workbench, other: Other) -> None:
    filled(bench)
    flip(bench.store, pack_at(bench, 20), 1 << 20)
    with pytest.raises(CorruptObject, match="packs/"):
        other.take(bench)
    assert copied_points(other.repository, "vm") == {}


def test_a_copy_that_was_cut_off_goes_on(bench: Workbench, other: Other) -> None:
    disk = filled(bench, chunks=600)

    class Killed(BaseException):
        pass

    class Dying(Layer):
        left = 4

        def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
            if key.startswith(("packs/", "pages/")):
                if not self.left:
                    raise Killed
                self.left -= 1
            super().put(key, data, create=create)

    dying = object.__new__(Other)
    dying.__dict__ |= other.__dict__
    dying.repository = Repository(Dying(other.store), other.repository.document, other.repository.sealing)
    with pytest.raises(Killed):
        dying.take(bench)
    copied = other.take(bench)
    assert copied.result is not None
    assert copied.result.resumed
    assert copied.result.report
    [result] = copied.result.disks
    assert result.counters.read < disk.stat().st_size - 3 * (8 << 20)
    assert copied.proof
    other.verified()


def test_a_repository_is_not_copied_into_itself(bench: Workbench) -> None:
    with pytest.raises(UsageError, match="the same repository"):
        check_other(bench.repository, bench.repository)


def test_a_point_that_is_no_copy_has_no_word_of_it(bench: Workbench) -> None:
    filled(bench)
    point = resolve(bench.repository, PointName("vm", 1))
    assert point.manifest.copied_from is None
    from manifests.envelope import Kind, open_by_place
    from manifests.names import manifest_key

    key = manifest_key("vm", 1)
    data = memoryview(bench.store.get(key))
    _kind, plain = open_by_place(data, Kind.MANIFEST, sealing=bench.repository.sealing, key=key)
    assert b"copied_from" not in plain


def test_the_copy_stands_alone(bench: Workbench, other: Other) -> None:
    """The first repository may be lost afterwards."""
    disk = filled(bench)
    other.take(bench)
    bench.store.delete_many([info.key for info in bench.store.list("")])
    assert isinstance(other.store, MemoryStore)
    assert verify_reading(other.repository, other.point()).ok
    other.restore()
    assert same(other.restored(), disk)
