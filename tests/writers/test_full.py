"""A target without room says so, names itself, and goes on when there is room again."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

import pytest
from nbd.tools import needs_qemu, needs_root, own_servers, small_disk

from pipeline.errors import TargetError, TargetFull
from pipeline.writers.base import BlockWriter
from pipeline.writers.open import open_writer
from pipeline.writers.raw import create_raw

MIB = 1024 * 1024


@needs_root
def test_a_full_file_system_is_named_and_the_write_can_be_repeated(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 4) as place:
        filler = place / "filler"
        filler.write_bytes(bytes(2 * MIB))
        writer = open_writer(str(place / "disk.raw"), size=64 * MIB)
        with pytest.raises(TargetFull, match=r"disk\.raw: no room for \d+ more bytes at \d+") as caught:
            writer.write(10 * MIB, [b"x" * MIB] * 3)
        assert "Make room" in caught.value.remedy
        filler.unlink()
        writer.write(10 * MIB, [b"x" * MIB] * 3)
        writer.flush()
        buffer = bytearray(3 * MIB)
        writer.read_into(10 * MIB, memoryview(buffer))
        assert buffer == b"x" * (3 * MIB)
        writer.close()


@needs_root
@needs_qemu
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vpc", "vhdx"])
def test_an_image_on_a_full_file_system_is_a_full_target(tmp_path: Path, image_format: str) -> None:
    with small_disk(tmp_path / "small", 8) as place:
        writer = open_writer(str(place / f"disk.{image_format}"), size=64 * MIB)
        with pytest.raises(TargetFull, match=rf"disk\.{image_format}"):
            fill(writer)
        with contextlib.suppress(TargetError):
            writer.close()
        assert own_servers() == []


def fill(writer: BlockWriter) -> None:
    for start in range(0, 32 * MIB, MIB):
        writer.write(start, [b"x" * MIB])


@needs_root
@needs_qemu
def test_an_image_that_cannot_be_created_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1) as place:
        (place / "filler").write_bytes(bytes(MIB - 8192))
        with pytest.raises(TargetError):
            open_writer(str(place / "disk.vhdx"), size=64 * MIB)
        assert [path.name for path in place.iterdir()] == ["filler"]


def test_a_file_longer_than_allowed_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, old[1]))
    try:
        with pytest.raises(TargetError, match="no files of"):
            create_raw(str(path), 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not path.exists()


def test_a_failed_flush_is_never_followed_by_one_that_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = create_raw(str(tmp_path / "disk.raw"), MIB)
    writer.flush()
    writer.write(0, [b"x"])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(TargetError, match="cannot store"):
            writer.flush()
    with pytest.raises(TargetError, match="cannot store"):
        writer.flush()
    writer.close()


def test_a_late_full_is_a_full_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = create_raw(str(tmp_path / "disk.raw"), MIB)

    def fail(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TargetFull, match=r"disk\.raw"):
        writer.flush()
    writer.close()
