"""The raw file writer: short writes, holes, lengths, early write-back."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from nbd.tools import loop, mounted, needs_qemu, needs_root, run

from pipeline.errors import TargetBusy, TargetError, TargetMismatch
from pipeline.writers import raw, writeback
from pipeline.writers.open import open_writer
from pipeline.writers.raw import create_raw, open_raw
from writers.conftest import read_back

MIB = 1024 * 1024


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = create_raw(str(tmp_path / "disk.raw"), MIB)
    real = os.pwritev

    def pwritev(fd: int, buffers: Sequence[Any], offset: int) -> int:
        joined = b"".join(bytes(part) for part in buffers)
        return real(fd, [joined[:777]], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    parts = [os.urandom(length) for length in (0, 1, 776, 777, 778, 0, 5000, 20_000)]
    writer.write(99, parts)
    assert read_back(writer, 99, sum(map(len, parts))) == b"".join(parts)
    writer.close()


def test_where_no_holes_can_be_punched_zeros_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes")

    monkeypatch.setattr(raw, "fallocate", refuse)
    writer = create_raw(str(tmp_path / "disk.raw"), 40 * MIB)
    writer.write(0, [b"x" * MIB] * 40)
    writer.discard(5, 20 * MIB)
    assert read_back(writer, 0, 40 * MIB) == b"x" * 5 + bytes(20 * MIB) + b"x" * (20 * MIB - 5)
    writer.close()


def test_a_discard_gives_room_back(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    writer = create_raw(str(path), 8 * MIB)
    writer.write(0, [b"x" * MIB] * 8)
    writer.flush()
    writer.discard(0, 8 * MIB)
    writer.flush()
    assert path.stat().st_blocks == 0
    assert path.stat().st_size == 8 * MIB
    writer.close()


def test_an_existing_file_is_made_longer_but_never_shorter_unasked(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * MIB)
    writer = open_raw(str(path), 2 * MIB)
    assert (writer.size, writer.fresh) == (2 * MIB, False)
    assert read_back(writer, 0, 2 * MIB) == b"x" * MIB + bytes(MIB)
    writer.close()
    with pytest.raises(TargetMismatch, match=f"has {2 * MIB} bytes, the disk has {MIB}"):
        open_raw(str(path), MIB)
    assert path.stat().st_size == 2 * MIB
    open_raw(str(path), MIB, shrink=True).close()
    assert path.stat().st_size == MIB


def test_early_write_back_never_holds_a_writer_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(writeback, "start_writeback", lambda *_: stuck.wait(20))
    writer = create_raw(str(tmp_path / "disk.raw"), 1024 * MIB)
    for start in range(0, 640 * MIB, 16 * MIB):
        writer.write(start, [b"x" * 4096])
        writer._writeback.wrote(start, 16 * MIB)
    writer.flush()
    stuck.set()
    writer.close()


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([(5, 5), (0, 5)], [(0, 10)]),
        ([(0, 10), (2, 3), (20, 1), (9, 2)], [(0, 11), (20, 1)]),
    ],
)
def test_ranges_are_merged(ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert writeback.merged(ranges) == expected


def test_a_huge_sparse_file_is_made_at_once(tmp_path: Path) -> None:
    size = 16 * 1024**4 - 4096
    writer = create_raw(str(tmp_path / "disk.raw"), size)
    writer.write(size - 3, [b"end"])
    writer.discard(0, size // 2)
    writer.flush()
    assert sum(extent.length for extent in writer.extents(0, size) if not extent.zero) <= 4096
    assert read_back(writer, size - 4, 4) == b"\0end"
    writer.close()


@needs_root
def test_a_file_that_is_mounted_is_busy_even_read_only(tmp_path: Path) -> None:
    path = tmp_path / "fs.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", path)
    with (
        loop(path) as device,
        mounted(device, tmp_path / "mnt", "-o", "ro"),
        pytest.raises(TargetBusy, match="mounted"),
    ):
        open_writer(str(path), size=16 * MIB, create=False)


@needs_qemu
def test_qemu_does_not_open_a_disk_that_is_being_restored(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    writer = create_raw(str(path), MIB)
    with pytest.raises(AssertionError, match="lock"):
        run("qemu-io", "-f", "raw", "-c", "read 0 512", path)
    writer.close()
    run("qemu-io", "-f", "raw", "-c", "read 0 512", path)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="nowhere"):
        create_raw(str(tmp_path / "nowhere" / "disk.raw"), MIB)
    with pytest.raises(TargetError, match=r"missing\.raw"):
        open_raw(str(tmp_path / "missing.raw"), MIB)
