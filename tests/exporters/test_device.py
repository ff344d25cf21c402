"""Block devices: geometry, who uses them, what can be promised about them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from nbd.tools import loop, mounted, needs_root, run

from exporters.conftest import read
from pipeline.errors import SourceBusy
from pipeline.exporters.device import DeviceExporter
from pipeline.exporters.open import open_exporter
from pipeline.exporters.usage import mounts

pytestmark = needs_root
MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    return path


def test_sectors_of_4096_bytes_are_told(disk: Path) -> None:
    with loop(disk, "--sector-size", "4096") as device:
        exporter = open_exporter(device)
        assert (exporter.size, exporter.sector_size) == (16 * MIB, 4096)
        exporter.close()


def test_a_mounted_device_is_busy_but_not_when_read_only(disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", disk)
    with loop(disk) as device:
        with mounted(device, tmp_path / "a b"):
            with pytest.raises(SourceBusy, match=r"mounted at .*a b"):
                open_exporter(device)
            live = open_exporter(device, allow_live=True)
            assert live.live
            live.close()
        with mounted(device, tmp_path / "a b", "-o", "ro"):
            assert not open_exporter(device).live


def test_a_read_only_bind_mount_does_not_hide_a_writable_file_system(disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", disk)
    with loop(disk) as device, mounted(device, tmp_path / "rw"), mounted(tmp_path / "rw", tmp_path / "ro", "--bind"):
        run("mount", "-o", "remount,bind,ro", tmp_path / "ro")
        with pytest.raises(SourceBusy):
            open_exporter(device)


def test_a_disk_with_a_mounted_partition_is_busy(disk: Path, tmp_path: Path) -> None:
    with loop(disk, "--partscan") as device:
        run("addpart", device, "1", "2048", str(16 * MIB // 512 - 2048))
        partition = f"{device}p1"
        run("mkfs.ext4", "-q", partition)
        exporter = open_exporter(device)
        assert not exporter.live
        exporter.close()
        with mounted(partition, tmp_path / "mnt"):
            for name in (device, partition, str(disk)):
                with pytest.raises(SourceBusy, match="mounted"):
                    open_exporter(name)


def test_a_device_under_another_loop_device_is_busy_when_that_is_mounted(disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", disk)
    with loop(disk) as lower, loop(Path(lower)) as upper, mounted(upper, tmp_path / "mnt"):
        for name in (str(disk), lower, upper):
            with pytest.raises(SourceBusy, match="mounted"):
                open_exporter(name)


def test_a_mount_in_another_namespace_is_seen(disk: Path, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", disk)
    place = tmp_path / "mnt"
    place.mkdir()
    with loop(disk) as device:
        script = f"mount {device} {place} && echo ready && read x; umount {place}"
        other = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        try:
            assert not any(mount.point == str(place) for mount in mounts())
            with pytest.raises(SourceBusy, match="another namespace"):
                open_exporter(device)
        finally:
            other.communicate(b"\n")


def test_swap_space_is_busy(disk: Path) -> None:
    with loop(disk) as device:
        run("mkswap", device)
        if subprocess.run(["swapon", device], capture_output=True, check=False).returncode != 0:
            pytest.skip("swap cannot be switched on here")
        try:
            with pytest.raises(SourceBusy, match="swap"):
                open_exporter(device)
        finally:
            run("swapoff", device)


def test_only_a_read_only_loop_device_has_an_identity_and_it_follows_the_file(disk: Path) -> None:
    with loop(disk) as device:
        assert DeviceExporter(device).identity is None
    with loop(disk, "--read-only") as device:
        exporter = DeviceExporter(device)
        assert exporter.identity is not None
        exporter.check_unchanged()
        assert DeviceExporter(device).identity == exporter.identity
        with disk.open("r+b") as file:
            file.write(b"x")
        with pytest.raises(Exception, match="written to"):
            exporter.check_unchanged()
        assert DeviceExporter(device).identity != exporter.identity


def test_what_was_written_around_the_cache_is_read(disk: Path) -> None:
    with loop(disk) as device:
        first = DeviceExporter(device)
        assert read(first, 0, 1) == b"\0"
        with disk.open("r+b") as file:
            file.write(b"x")
        second = DeviceExporter(device)
        assert read(second, 0, 1) == b"x"
        first.close()
        second.close()
