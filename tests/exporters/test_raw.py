"""A raw file: what changes under the reader, what cannot be read, who else uses it."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from nbd.tools import loop, mounted, needs_qemu, needs_root, qemu_nbd, run

from exporters.conftest import read
from pipeline.errors import SourceBusy, SourceChanged, SourceError, Unreadable, UsageError
from pipeline.exporters.files import FileState
from pipeline.exporters.open import open_exporter
from pipeline.exporters.raw import RawExporter

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(MIB))
    return path


def test_a_disk_that_shrinks_is_noticed_by_the_read_and_by_the_check(disk: Path) -> None:
    exporter = RawExporter(str(disk))
    os.truncate(disk, MIB // 2 + 100)
    assert len(read(exporter, 0, 1000)) == 1000
    with pytest.raises(SourceChanged, match=f"ends at {MIB // 2 + 100}"):
        read(exporter, 0, MIB)
    with pytest.raises(SourceChanged, match="shorter"):
        exporter.check_unchanged()


def test_a_disk_that_grows_is_noticed(disk: Path) -> None:
    exporter = RawExporter(str(disk))
    os.truncate(disk, MIB + 1)
    with pytest.raises(SourceChanged, match="longer"):
        exporter.check_unchanged()


def test_a_write_right_after_opening_is_noticed_however_coarse_the_clock(disk: Path) -> None:
    for _ in range(20):
        with disk.open("r+b") as file:
            file.write(os.urandom(16))
        exporter = RawExporter(str(disk))
        with disk.open("r+b") as file:
            file.write(os.urandom(16))
        with pytest.raises(SourceChanged, match="written to"):
            exporter.check_unchanged()
        exporter.close()


def test_a_replaced_file_has_another_identity(disk: Path) -> None:
    first = RawExporter(str(disk)).identity
    other = disk.with_suffix(".new")
    other.write_bytes(disk.read_bytes())
    os.utime(other, ns=(disk.stat().st_atime_ns, disk.stat().st_mtime_ns))
    other.rename(disk)
    assert RawExporter(str(disk)).identity != first


def break_sectors(monkeypatch: pytest.MonkeyPatch, bad: set[int], grain: int, times: float = float("inf")) -> None:
    """Let preadv behave as on a disk with bad blocks of `grain` bytes: short before one, EIO on it."""
    real = os.preadv
    left = times

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        nonlocal left
        wanted = sum(view.nbytes for view in buffers)
        for block in range(offset // grain, -(-(offset + wanted) // grain)):
            if block in bad and left > 0:
                good = block * grain - offset
                if good <= 0:
                    left -= 1
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return real(fd, [buffers[0][:good]], offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("grain", [512, 4096])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 1), (17, 5), (255, 1)])
def test_an_unreadable_range_is_named_to_the_sector(
    disk: Path, monkeypatch: pytest.MonkeyPatch, grain: int, first: int, count: int
) -> None:
    exporter = RawExporter(str(disk))
    break_sectors(monkeypatch, set(range(first, first + count)), grain)
    with pytest.raises(Unreadable) as caught:
        read(exporter, 0, MIB)
    assert (caught.value.offset, caught.value.length) == (first * grain, count * grain)
    assert "disk.img" in str(caught.value)
    if first:
        assert read(exporter, 0, first * grain) == disk.read_bytes()[: first * grain]
    rest = (first + count) * grain
    assert read(exporter, rest, MIB - rest) == disk.read_bytes()[rest:]


@pytest.mark.parametrize("shift", [1, 100, 511, 4000])
def test_an_unreadable_sector_is_named_within_a_read_that_begins_anywhere(
    disk: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    exporter = RawExporter(str(disk))
    break_sectors(monkeypatch, {20}, 512)
    with pytest.raises(Unreadable) as caught:
        read(exporter, shift, MIB - shift)
    assert (caught.value.offset, caught.value.length) == (20 * 512, 512)


def test_every_read_that_meets_a_bad_sector_fails_and_names_part_of_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = RawExporter(str(disk))
    bad = {1, 2, 40, 41, 42, 200}
    break_sectors(monkeypatch, bad, 512)
    source = random.Random(5)
    for _ in range(300):
        start, end = sorted(source.sample(range(150_000), 2))
        touched = {block for block in bad if start < (block + 1) * 512 and end > block * 512}
        if not touched:
            read(exporter, start, end - start)
            continue
        with pytest.raises(Unreadable) as caught:
            read(exporter, start, end - start)
        named = range(caught.value.offset, caught.value.offset + caught.value.length)
        assert named.start == max(start, min(touched) * 512)
        assert start <= named.start < named.stop <= end
        assert {position // 512 for position in named} <= bad


def test_what_can_be_read_on_the_second_try_is_read(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = RawExporter(str(disk))
    break_sectors(monkeypatch, {7}, 4096, times=1)
    assert read(exporter, 0, MIB) == disk.read_bytes()


def test_a_sparse_disk_of_16_tib_is_mapped_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.raw"
    size = 16 * 1024**4 - 4096  # the longest file of ext4
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(9 * 1024**4)
        file.write(b"x" * 4096)
    exporter = RawExporter(str(path))
    data = [extent for extent in exporter.extents(0, size) if not extent.zero]
    assert [(extent.offset, extent.length) for extent in data] == [(9 * 1024**4, 4096)]
    assert read(exporter, 9 * 1024**4 - 1, 2) == b"\0x"
    assert read(exporter, size - 5, 5) == bytes(5)


def test_a_file_system_that_knows_no_holes_reports_data(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = RawExporter(str(disk))

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "no SEEK_DATA")

    monkeypatch.setattr(os, "lseek", refuse)
    assert [(extent.offset, extent.length, extent.zero) for extent in exporter.extents(5, MIB)] == [(5, MIB - 5, False)]


@needs_root
def test_a_file_whose_loop_device_is_mounted_is_busy_but_not_when_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "fs.img"
    with disk.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", disk)
    with loop(disk) as device:
        open_exporter(str(disk)).close()
        with mounted(device, tmp_path / "mnt"):
            with pytest.raises(SourceBusy, match="mounted at"):
                open_exporter(str(disk))
            live = open_exporter(str(disk), allow_live=True)
            assert live.live
            assert live.identity is None
            live.close()
        with mounted(device, tmp_path / "mnt", "-o", "ro"):
            exporter = open_exporter(str(disk))
            assert not exporter.live
            exporter.close()


@needs_qemu
def test_a_file_that_qemu_writes_is_busy(disk: Path, tmp_path: Path) -> None:
    with qemu_nbd(tmp_path, "--format=raw", disk):
        with pytest.raises(SourceBusy, match="QEMU") as caught:
            open_exporter(str(disk))
        assert "--allow-live" in caught.value.remedy
        live = open_exporter(str(disk), allow_live=True)
        assert live.live
        os.utime(disk)
        live.check_unchanged()  # that it is written to is known
    with qemu_nbd(tmp_path, "--read-only", "--format=raw", disk):
        assert not open_exporter(str(disk)).live


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: os.mkfifo(path), UsageError),
        (lambda path: path.mkdir(), UsageError),
        (lambda _: None, SourceError),
    ],
)
def test_what_is_no_disk_is_refused(tmp_path: Path, make: Callable[[Path], None], error: type[Exception]) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(error, match="thing"):
        open_exporter(str(path))


def test_the_state_of_a_file_waits_for_the_end_of_a_clock_tick(disk: Path) -> None:
    os.utime(disk)
    states = {str(FileState.of(disk)) for _ in range(3)}
    assert len(states) == 1
