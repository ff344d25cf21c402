"""`--format vmdk-stream`: a file that qemu-img reads bit for bit, whole or known not to be."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, text
from transfer.vmdk_reader import read_vmdk

from pipeline.errors import StoreUnavailable, TargetBusy, TargetFull, TargetMismatch, UsageError, VerifyError
from pipeline.place import DiskRestored
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.transfer import mark
from pipeline.transfer.stage import Stage
from pipeline.writers.raw import RawWriter

SIZE = 40 * MIB + 1536
FORMAT = "vmdk-stream"
needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def two_points(bench: Workbench, tmp_path: Path) -> tuple[Path, Path]:
    """Sources as they were at point 1 and point 2."""
    source = make_disk(
        tmp_path / "source", SIZE, {0: text(MIB, 1), 2 * MIB: noise(3 * MIB, 2), 39 * MIB: text(MIB + 1536, 3)}
    )
    bench.export(source)
    first = tmp_path / "first"
    shutil.copy(source, first)
    poke(source, 35 * MIB, noise(2 * CHUNK, 4))
    bench.export(source)
    return first, source


def bring(bench: Workbench, sequence: int | None = None) -> DiskRestored:
    [done] = bench.restore(sequence, image_format=FORMAT)
    return done


def target(bench: Workbench) -> Path:
    return bench.out / "vm-disk0.vmdk"


def holds(bench: Workbench, source: Path) -> bool:
    return read_vmdk(target(bench).read_bytes()).disk() == source.read_bytes()


@needs_qemu
def test_qemu_finds_the_disk_bit_for_bit(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    done = bring(bench)
    assert (done.mode, done.reason, done.target) == ("full", "the target is new", str(target(bench)))
    assert done.counters.sent == target(bench).stat().st_size < 6 * MIB
    subprocess.run(["qemu-img", "check", "-f", "vmdk", target(bench)], check=True)
    compare = ["qemu-img", "compare", "-f", "vmdk", "-F", "raw", target(bench), two_points[1]]
    assert subprocess.run(compare, check=False).returncode == 0
    assert holds(bench, two_points[1])


def test_the_same_point_is_not_written_again_and_another_one_whole(
    bench: Workbench, two_points: tuple[Path, Path]
) -> None:
    bring(bench, 1)
    before = target(bench).stat().st_mtime_ns
    assert bring(bench, 1).mode == "unchanged"
    assert target(bench).stat().st_mtime_ns == before
    done = bring(bench, 2)
    assert (done.mode, done.reason) == ("full", "the target holds vm@1; a VMDK stream is written whole")
    assert holds(bench, two_points[1])
    assert bring(bench, 1).mode == "full", "shorter than before"
    assert holds(bench, two_points[0])


def test_a_file_that_somebody_wrote_to_is_written_again(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bring(bench)
    poke(target(bench), 70000, b"foreign")
    done = bring(bench)
    assert (done.mode, "somebody wrote" in done.reason) == ("full", True)
    assert holds(bench, two_points[1])


def test_a_foreign_file_is_never_overwritten(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bench.out.mkdir()
    target(bench).write_bytes(b"precious")
    with pytest.raises(TargetMismatch, match="was not written by failback"):
        bring(bench)
    assert target(bench).read_bytes() == b"precious"


def test_a_file_that_is_being_written_is_left_alone(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bring(bench, 1)
    stage = Stage(bench.out / ".failback" / "vm-disk0.vmdk")
    stage.lock("test")
    with pytest.raises(TargetBusy):
        bring(bench, 2)
    stage.unlock()
    assert holds(bench, two_points[0])


@pytest.mark.parametrize("nth", [1, 2])
def test_after_a_failure_the_same_command_ends_with_a_whole_file(
    bench: Workbench, two_points: tuple[Path, Path], nth: int
) -> None:
    bring(bench, 1)
    broken = bench.through(FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("cut")), verb="get_range", nth=nth)]))
    with pytest.raises(StoreUnavailable):
        bring(broken, 2)
    done = bring(bench, 2)
    assert (done.mode, "cut short" in done.reason) == ("full", True)
    assert holds(bench, two_points[1])


@pytest.mark.parametrize("nth", [1, -1, 2, -2, 3, -3, 4, 5, -5, 6, -6, 7, 8, 9, 10])
def test_killed_at_any_step_the_same_command_ends_with_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    source = make_disk(tmp_path / "source", SIZE, {0: text(MIB, 1), 30 * MIB: noise(2 * MIB, 2)})
    bench.export(source)

    def killed() -> None:
        steps = [
            (Stage, "write"),
            (RawWriter, "append"),
            (RawWriter, "empty"),
            (RawWriter, "flush"),
            (mark, "put_mark"),
        ]
        kill_at(monkeypatch, steps, nth)
        bring(bench)

    was_killed = in_child(killed)
    assert was_killed or nth > 8
    assert bring(bench).mode == ("full" if was_killed else "unchanged")
    assert holds(bench, source)


def test_a_file_that_reads_back_wrongly_is_not_taken(
    bench: Workbench, two_points: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RawWriter.flush

    def flush(writer: RawWriter) -> None:
        real(writer)
        os.pwrite(writer._fd, b"lost", 100_000)

    with monkeypatch.context() as patch:
        patch.setattr(RawWriter, "flush", flush)
        with pytest.raises(VerifyError, match="does not read back"):
            bring(bench)
    assert bring(bench).mode == "full"
    assert holds(bench, two_points[1])


def test_a_dry_run_tells_what_would_be_fetched_and_writes_nothing(
    bench: Workbench, two_points: tuple[Path, Path]
) -> None:
    [dry] = bench.restore(image_format=FORMAT, dry_run=True)
    assert (dry.mode, dry.to_move, bench.out.exists()) == ("full", bench.disk().live_bytes, False)
    bring(bench, 1)
    [dry] = bench.restore(1, image_format=FORMAT, dry_run=True)
    assert (dry.mode, dry.to_move) == ("unchanged", 0)
    [dry] = bench.restore(2, image_format=FORMAT, dry_run=True)
    assert (dry.mode, dry.to_move) == ("full", bench.disk(2).live_bytes)
    assert holds(bench, two_points[0])


def test_a_seed_is_refused(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="--seed does not go with it"):
        bench.restore(image_format=FORMAT, seeds=(str(two_points[0]),))


@needs_qemu
def test_a_file_changes_between_the_two_kinds_of_vmdk(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bench.restore(image_format="vmdk")
    assert bring(bench).mode == "full"
    assert holds(bench, two_points[1])
    with pytest.raises(TargetMismatch, match="streamOptimized"):
        bench.restore(image_format="vmdk")
    assert holds(bench, two_points[1])


def test_a_full_file_system_is_named_and_the_same_command_goes_on(
    bench: Workbench, two_points: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _buffers: object, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        with pytest.raises(TargetFull, match=r"vm-disk0\.vmdk: no room"):
            bring(bench)
    assert bring(bench).mode == "full"
    assert holds(bench, two_points[1])
