"""Only a file that failback made is written to, however it came to bear the name."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from nbd.tools import needs_qemu, needs_root, small_disk
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, same

from pipeline.errors import TargetMismatch
from pipeline.transfer import mark

FORMATS = ["raw", pytest.param("qcow2", marks=needs_qemu), pytest.param("vmdk", marks=needs_qemu)]


@pytest.fixture
def source(bench: Workbench, tmp_path: Path) -> Path:
    """Exported twice, and restored to the first point by the test."""
    source = make_disk(tmp_path / "source", 2 * MIB + 100, {0: noise(5 * CHUNK, 1), MIB: noise(CHUNK, 2)})
    bench.export(source)
    poke(source, CHUNK, b"second")
    bench.export(source)
    return source


def refused(bench: Workbench, **request: object) -> None:
    for dry_run in (True, False):
        with pytest.raises(TargetMismatch, match="was not written by failback") as caught:
            bench.restore(2, dry_run=dry_run, **request)  # type: ignore[arg-type]
        assert "--seed" in caught.value.remedy


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_that_replaced_a_restored_one_is_not_overwritten(
    bench: Workbench, source: Path, image_format: str
) -> None:
    bench.restore(1, image_format=image_format)
    path = bench.restored(image_format=image_format)
    path.unlink()  # on most file systems the next file gets the inode number of this one
    path.write_bytes(b"precious")
    refused(bench, image_format=image_format)
    assert path.read_bytes() == b"precious"
    path.unlink()
    [done] = bench.restore(2, image_format=image_format)
    assert done.mode == "full"


def test_a_copy_of_another_disk_of_the_same_length_is_not_overwritten(bench: Workbench, source: Path) -> None:
    bench.restore(1)
    other = make_disk(bench.root / "other", 2 * MIB + 100, {0: noise(CHUNK, 9)})
    kept = other.read_bytes()
    other.replace(bench.restored())
    refused(bench)
    assert bench.restored().read_bytes() == kept


@pytest.mark.parametrize("image_format", FORMATS)
def test_what_was_only_written_to_is_ours(bench: Workbench, source: Path, image_format: str) -> None:
    bench.restore(1, image_format=image_format)
    if image_format == "raw":
        poke(bench.restored(), 3 * CHUNK, b"by a machine that ran")
    else:
        os.utime(bench.restored(image_format=image_format))
    [done] = bench.restore(2, image_format=image_format)
    assert done.mode == "hashed"
    assert bench.restore(2, image_format=image_format)[0].mode == "unchanged"


def test_a_folder_that_was_renamed_is_refreshed(bench: Workbench, source: Path) -> None:
    bench.restore(1)
    bench.out = bench.out.rename(bench.root / "elsewhere")
    [done] = bench.restore(2)
    assert done.mode == "refresh"
    assert same(source, bench.restored())


@needs_root
@pytest.mark.parametrize("attributes", [True, False], ids=["with attributes", "without"])
def test_a_folder_that_was_copied_to_another_file_system_is_refreshed(
    bench: Workbench, source: Path, tmp_path: Path, attributes: bool
) -> None:
    bench.restore(1)
    with small_disk(tmp_path / "small", 16) as place:
        shutil.copytree(bench.out, place / "out", copy_function=shutil.copy2)
        moved = place / "out" / bench.restored().name
        if not attributes:  # as rsync -a and most network file systems leave it
            os.removexattr(moved, mark.ATTRIBUTE)
        bench.out = place / "out"
        [done] = bench.restore(2)
        assert done.mode == "hashed"
        assert same(source, bench.restored())


def test_an_interrupted_restore_that_was_moved_away_and_replaced_is_refused(
    bench: Workbench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.transfer.read_back.ReadBack.whole", cut)
        with pytest.raises(KeyboardInterrupt):
            bench.restore(2)
    half = bench.restored().rename(bench.root / "half")
    bench.restored().write_bytes(b"precious")
    refused(bench)
    half.replace(bench.restored())
    bench.restore(2)
    assert same(source, bench.restored())


def test_without_extended_attributes_the_inode_tells(
    bench: Workbench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", unsupported)
    monkeypatch.setattr(os, "getxattr", unsupported)
    bench.restore(1)
    poke(bench.restored(), 3 * CHUNK, b"ours, and written to")
    bench.restore(2)
    assert same(source, bench.restored())
    other = make_disk(bench.root / "other", 2 * MIB + 100, {0: noise(CHUNK, 9)})
    other.replace(bench.restored())
    refused(bench)


@pytest.mark.parametrize("damage", ["gone", "empty", "noise"])
def test_when_the_mark_is_lost_the_file_is_known_by_its_times_or_kept(
    bench: Workbench, source: Path, damage: str
) -> None:
    bench.restore(1)
    made = bench.out / ".failback" / bench.restored().name / "made"
    if damage == "gone":
        made.unlink()
    else:
        made.write_bytes(b"" if damage == "empty" else b"\xff" * 32)
    assert bench.restore(1)[0].mode == "unchanged"
    poke(bench.restored(), 3 * CHUNK, b"written to")
    before = bench.restored().read_bytes()
    refused(bench)
    assert bench.restored().read_bytes() == before


def test_a_kill_before_the_mark_leaves_nothing_in_the_way(
    bench: Workbench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.transfer.local.put_mark", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.restore(2)
    assert bench.restored().exists()
    bench.restore(2)
    assert same(source, bench.restored())
