"""Kept, what the guest wrote is in the disk; dropped, the disk is as it was. A kill in between changes neither."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import CHUNK, MIB, Workbench, allocated, poke

from pipeline.errors import TargetBusy, TargetMismatch
from pipeline.serve.finish import drop, merge, to_layer
from pipeline.serve.local import stage_of
from pipeline.store.directory import DirectoryStore
from pipeline.writers.image import ImageWriter
from serve.test_fill import filled, stage_says, wait
from serve.tools import SIZE, content, exported, needs_qemu, qemu_io, run, served
from serve.tools import listening as listening_to


def expected() -> bytes:
    """After `written`."""
    data = bytearray(content())
    data[100:105] = b"guest"
    data[3 * MIB : 3 * MIB + 9000] = b"g" * 9000
    data[MIB : MIB + 3 * CHUNK] = bytes(3 * CHUNK)
    data[SIZE - 3 :] = b"end"
    return bytes(data)


def written(bench: Workbench) -> Path:
    """A filled stage and an overlay beside it; returns the stage's file."""
    target = bench.restored()
    with served(bench, fill=target) as instant:
        instant.disk.write(100, b"guest")
        instant.disk.write(3 * MIB, b"g" * 9000)
        instant.disk.zero(MIB, 3 * CHUNK)
        instant.disk.write(SIZE - 3, b"end")
        wait(instant)
    return target


def test_merged_the_disk_holds_what_the_guest_wrote(bench: Workbench) -> None:
    target = written(bench)
    before = allocated(target)
    assert merge(bench.root / "guest", target) == 4096 + 12288 + 512  # whole blocks; the disk's end is no whole one
    assert target.read_bytes() == expected()
    assert allocated(target) <= before - 2 * CHUNK  # trimmed space is given back
    assert stage_says(target) == "kept"
    assert not (bench.root / "guest" / "overlay").exists()
    assert merge(bench.root / "guest", target) == 0


def test_dropped_the_disk_is_as_it_was_and_still_known(bench: Workbench) -> None:
    target = written(bench)
    state = target.stat()
    assert drop(bench.root / "guest")
    assert not drop(bench.root / "guest")
    assert target.read_bytes() == content()
    assert (target.stat().st_mtime_ns, target.stat().st_ctime_ns) == (state.st_mtime_ns, state.st_ctime_ns)
    assert bench.restore()[0].mode == "unchanged"
    with served(bench, fill=target) as instant:
        buffer = bytearray(SIZE)
        instant.disk.read_into(0, memoryview(buffer))
        assert buffer == content()


@needs_qemu
def test_qemu_finds_the_merged_disk_equal_to_the_served_one(bench: Workbench, tmp_path: Path) -> None:
    target = bench.restored()
    with listening_to(bench, fill=target) as (instant, uri):
        qemu_io(uri, "write -P 0x77 0 4k", "write -P 0x78 5M 100k", "write -z 1M 512k", "discard 2M 64k", "flush")
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, tmp_path / "seen.raw")
        wait(instant)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", target, bench.root / "source.raw")
    merge(bench.root / "guest", target)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", target, tmp_path / "seen.raw")


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6])
def test_killed_anywhere_a_merge_goes_on(tmp_path: Path, nth: int) -> None:
    bench = exported(Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True)))
    target = written(bench)

    def killed() -> None:
        calls = [(os, "pwritev"), (os, "fdatasync"), (Path, "replace"), (Path, "rename"), (shutil, "rmtree")]
        kill_at(pytest.MonkeyPatch(), calls, nth)
        merge(bench.root / "guest", target)

    in_child(killed)
    merge(bench.root / "guest", target)
    assert target.read_bytes() == expected()
    assert stage_says(target) == "kept"


def test_a_merge_that_was_cut_short_is_not_dropped(tmp_path: Path) -> None:
    bench = exported(Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True)))
    target = written(bench)

    def killed() -> None:
        kill_at(pytest.MonkeyPatch(), [(os, "pwritev")], -1)
        merge(bench.root / "guest", target)

    assert in_child(killed)
    with pytest.raises(TargetMismatch, match="the disk has some of it"):
        drop(bench.root / "guest")
    with pytest.raises(TargetMismatch, match="is not the filled stage"):
        to_layer(bench.root / "guest", target, tmp_path / "layer.qcow2")
    merge(bench.root / "guest", target)
    assert target.read_bytes() == expected()
    assert not drop(bench.root / "guest")


@needs_qemu
def test_as_a_layer_it_hides_the_stage_where_the_guest_wrote_and_can_be_thrown_away(
    bench: Workbench, tmp_path: Path
) -> None:
    target, layer = written(bench), tmp_path / "layer.qcow2"
    layer.write_bytes(b"of an earlier try")
    assert to_layer(bench.root / "guest", target, layer) == 4096 + 12288 + 512
    run("qemu-img", "check", layer)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer, tmp_path / "seen.raw")
    assert (tmp_path / "seen.raw").read_bytes()[:SIZE] == expected()
    assert target.read_bytes() == content()
    assert bench.restore()[0].mode == "unchanged"
    assert not (bench.root / "guest" / "overlay").exists()
    assert to_layer(bench.root / "guest", target, layer) == 0  # nothing left to do, and the layer stays


@needs_qemu
@pytest.mark.parametrize("nth", [1, 2, 3, -1, -2, -3])
def test_killed_while_a_layer_is_made_it_is_made_anew(tmp_path: Path, nth: int) -> None:
    bench = exported(Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True)))
    target, layer = written(bench), tmp_path / "layer.qcow2"

    def killed() -> None:
        kill_at(pytest.MonkeyPatch(), [(os, "fsync"), (Path, "replace"), (Path, "rename"), (ImageWriter, "flush")], nth)
        to_layer(bench.root / "guest", target, layer)

    in_child(killed)
    to_layer(bench.root / "guest", target, layer)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer, tmp_path / "seen.raw")
    assert (tmp_path / "seen.raw").read_bytes()[:SIZE] == expected()


def test_only_a_whole_stage_of_the_same_point_takes_a_merge(bench: Workbench) -> None:
    target = bench.restored()
    with served(bench) as instant:
        instant.disk.write(0, b"guest")
    with pytest.raises(TargetMismatch, match="is not there"):
        merge(bench.root / "guest", target)
    filled(bench, target, state="other")
    poke(bench.root / "source.raw", 0, b"new")
    bench.export(bench.root / "source.raw")
    bench.restore()
    with pytest.raises(TargetMismatch, match="not the filled stage of vm@1 disk 0"):
        merge(bench.root / "guest", target)
    assert target.read_bytes() == (bench.root / "source.raw").read_bytes()
    bench.restore(1)
    poke(target, 5, b"vandal")
    with pytest.raises(TargetMismatch, match="somebody wrote"):
        merge(bench.root / "guest", target)
    bench.restore(1)
    assert merge(bench.root / "guest", target) == 4096


def test_while_a_server_runs_nothing_is_merged_or_dropped(bench: Workbench) -> None:
    target = written(bench)
    with served(bench, fill=target):
        for action in (lambda: drop(bench.root / "guest"), lambda: merge(bench.root / "guest", target)):
            with pytest.raises(TargetBusy):
                action()
    with served(bench, state="other", fill=target), pytest.raises(TargetBusy):
        merge(bench.root / "guest", target)


def test_a_disk_with_kept_writes_is_not_filled_over(bench: Workbench) -> None:
    target = written(bench)
    merge(bench.root / "guest", target)
    with pytest.raises(TargetMismatch, match="which no point has"), served(bench, fill=target):
        pass
    assert target.read_bytes() == expected()
    assert stage_of(target).state is not None
