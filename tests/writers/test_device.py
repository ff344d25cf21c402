"""A block device is overwritten only when it is the one that was named, and nobody uses it."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path

import pytest
from nbd.tools import loop, mounted, needs_root, run

from pipeline.errors import TargetBusy, TargetError, TargetMismatch, UsageError
from pipeline.exporters.aligned import Aligned
from pipeline.exporters.blockdev import BlockDevice
from pipeline.writers import device as module
from pipeline.writers import linux
from pipeline.writers.device import open_device
from pipeline.writers.open import open_writer
from writers.conftest import read_back

pytestmark = needs_root
MIB = 1024 * 1024
SIZE = 16 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"precious" * (SIZE // 8))
    return path


def test_a_path_alone_is_not_enough(disk: Path) -> None:
    with loop(disk) as device:
        with pytest.raises(UsageError, match="size or its serial"):
            open_device(device)
        with pytest.raises(UsageError):
            open_writer(device, size=SIZE)
    assert disk.read_bytes()[:8] == b"precious"


def test_another_size_is_another_disk(disk: Path) -> None:
    with loop(disk) as device, pytest.raises(TargetMismatch, match=f"has {SIZE} bytes, not {SIZE + 512}"):
        open_device(device, expect_size=SIZE + 512)


def test_another_serial_is_another_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockDevice, "serials", lambda self: ["6000C298-ab12", "0x5000"])
    with loop(disk) as device:
        with pytest.raises(TargetMismatch, match=r"known: 6000C298-ab12, 0x5000"):
            open_device(device, expect_serial="6000c298ab13")
        with pytest.raises(TargetMismatch):
            open_device(device, expect_size=SIZE, expect_serial="other")
        open_device(device, expect_serial="6000c298ab12").close()
        open_device(device, expect_size=SIZE, expect_serial="0x5000").close()


def test_a_disk_that_is_too_small_is_refused(disk: Path) -> None:
    with loop(disk) as device, pytest.raises(TargetMismatch, match="large enough"):
        open_writer(device, size=SIZE + 1, expect_size=SIZE)


@pytest.mark.parametrize("options", [[], ["-o", "ro"]])
def test_a_mounted_device_is_busy(disk: Path, tmp_path: Path, options: list[str]) -> None:
    run("mkfs.ext4", "-q", "-F", disk)
    with loop(disk) as device:
        with mounted(device, tmp_path / "mnt", *options), pytest.raises(TargetBusy, match="mounted at"):
            open_device(device, expect_size=SIZE)
        open_device(device, expect_size=SIZE).close()


def test_a_device_that_is_written_cannot_be_mounted(disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", "-F", disk)
    with loop(disk) as device:
        writer = open_device(device, expect_size=SIZE)
        with pytest.raises(AssertionError, match="busy"), mounted(device, tmp_path / "mnt"):
            pass
        writer.close()


def test_a_read_only_device_is_refused(disk: Path) -> None:
    with loop(disk, "--read-only") as device, pytest.raises(TargetError, match="read-only"):
        open_device(device, expect_size=SIZE)


def test_a_file_is_no_device(disk: Path) -> None:
    with pytest.raises(TargetMismatch, match="not a block device"):
        open_device(str(disk), expect_size=SIZE)


def test_a_link_to_a_device_is_followed(disk: Path, tmp_path: Path) -> None:
    with loop(disk) as device:
        link = tmp_path / "by-id"
        link.symlink_to(device)
        open_device(str(link), expect_size=SIZE).close()


def test_discarded_ranges_read_as_zeros_to_the_byte_and_give_room_back(disk: Path) -> None:
    with loop(disk) as device:
        writer = open_device(device, expect_size=SIZE)
        writer.discard(MIB + 7, 8 * MIB)
        writer.discard(100, 50)
        writer.flush()
        writer.drop_cache()
        expected = bytearray(b"precious" * (SIZE // 8))
        expected[MIB + 7 : 9 * MIB + 7] = bytes(8 * MIB)
        expected[100:150] = bytes(50)
        assert read_back(writer, 0, SIZE) == expected
        assert disk.stat().st_blocks * 512 <= 9 * MIB
        writer.close()


@pytest.mark.parametrize("working", [0, 1])
def test_a_disk_without_offloaded_zeros_gets_real_ones(
    disk: Path, monkeypatch: pytest.MonkeyPatch, working: int
) -> None:
    real = linux.fallocate
    calls = []

    def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
        calls.append(mode)
        if len(set(calls)) > working:
            raise OSError(errno.EOPNOTSUPP, "not here")
        real(fd, mode, offset, length)

    monkeypatch.setattr(module, "fallocate", fallocate)
    with loop(disk) as device:
        writer = open_device(device, expect_size=SIZE)
        for start in (0, 3 * MIB):
            writer.discard(start, 2 * MIB)
            assert read_back(writer, start, 2 * MIB) == bytes(2 * MIB)
        writer.close()


def test_writes_around_the_device_break_its_guard(disk: Path) -> None:
    with loop(disk) as device:
        writer = open_device(device, expect_size=SIZE)
        writer.write(0, [b"x"])
        writer.flush()
        guard = writer.guard()
        with disk.open("r+b") as file:
            file.write(b"y")
        assert writer.guard() != guard
        writer.close()


def test_the_guard_does_not_outlive_the_device(disk: Path) -> None:
    guards = set()
    for _ in range(2):
        with loop(disk) as device:
            writer = open_device(device, expect_size=SIZE)
            guards.add(writer.guard())
            writer.close()
    assert len(guards) == 2


def test_where_writes_are_not_counted_no_guard_is_like_another(disk: Path) -> None:
    with loop(disk) as device:
        switch = Path("/sys/block", Path(device).name, "queue/iostats")
        writer = open_device(device, expect_size=SIZE)
        switch.write_text("0")
        try:
            assert writer.guard() != writer.guard()
        finally:
            switch.write_text("1")
        writer.close()


@needs_root
def test_a_proof_is_read_from_the_disk_and_not_from_the_cache(disk: Path) -> None:
    with loop(disk) as device, closing(open_device(device, expect_size=SIZE)) as writer:
        writer.write(0, [b"a" * SIZE])
        writer.flush()
        writer.drop_cache()
        aligned, odd = Aligned(1 << 20).view, memoryview(bytearray(1000))
        for word in (b"a", b"b"):  # what was read once is not kept
            disk.write_bytes(word * SIZE)
            writer.read_into(4096, aligned)
            assert bytes(aligned) == word * len(aligned)
        writer.drop_cache()
        writer.read_into(SIZE - 1000, odd)
        assert bytes(odd) == b"b" * 1000
