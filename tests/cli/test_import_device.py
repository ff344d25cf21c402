"""A block device as target: it is named twice, refreshed in place, and refused when it is not the one or not free."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbd.tools import loop, mounted, needs_root, run

from cli.conftest import CHUNK, Run
from pipeline.exporters.blockdev import BlockDevice

pytestmark = needs_root
SIZE = 4 << 20


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """What stands behind the device: somebody's data, everywhere."""
    path = tmp_path / "backing"
    path.write_bytes(b"precious" * (SIZE // 8))
    return path


@pytest.fixture
def device(backing: Path) -> Iterator[str]:
    with loop(backing) as device:
        yield device


@pytest.fixture
def exported(repository: Path, disk: Path, failback: Run) -> Path:
    assert failback("export", "web", "--disk", disk).code == 0
    return disk


def holds(device: str, disk: Path) -> bool:
    """The disk's bytes, then zeros: read around the cache of the file behind it."""
    wanted = disk.read_bytes()
    run("blockdev", "--flushbufs", device)
    return Path(device).read_bytes() == wanted + bytes(SIZE - len(wanted))


def test_a_disk_is_restored_onto_it_and_refreshed(
    exported: Path, device: str, change: Callable[[Path, int], None], failback: Run
) -> None:
    place = f"0={device}:size={SIZE}"
    done = failback("import", "web", "--device", place, "--json")
    assert done.code == 0, done.err
    assert done.result["disks"][0]["mode"] == "hashed", "what it held was looked at first"
    assert holds(device, exported)
    assert failback("verify", "web", "--disk", device).code == 0
    assert failback("import", "web", "--device", place, "--json").result["disks"][0]["mode"] == "unchanged"
    change(exported, 4)
    change(exported, 7)
    assert failback("export", "web", "--disk", exported).code == 0
    done = failback("import", "web", "--device", place, "--json")
    assert done.result["disks"][0]["mode"] == "refresh", done.result["disks"][0]["reason"]
    assert done.result["written"] == 2 * CHUNK
    assert holds(device, exported)


def test_what_was_written_to_it_since_is_found(exported: Path, device: str, failback: Run) -> None:
    place = f"0={device}:size={SIZE}"
    assert failback("import", "web", "--device", place).code == 0
    with Path(device).open("r+b") as file:
        file.seek(5 * CHUNK + 3)
        file.write(b"by somebody else")
    done = failback("import", "web", "--device", place, "--json")
    assert done.result["disks"][0]["mode"] == "hashed"
    assert holds(device, exported)


def test_a_seed_spares_the_store_on_a_device_too(exported: Path, device: str, tmp_path: Path, failback: Run) -> None:
    seed = tmp_path / "seed.img"
    seed.write_bytes(exported.read_bytes())
    done = failback("import", "web", "--device", f"0={device}:size={SIZE}", "--seed", seed, "--json")
    assert done.result["read"] == 0, "nothing was fetched"
    assert holds(device, exported)


def refused(failback: Run, backing: Path, place: str, code: int, *says: str) -> None:
    before = backing.read_bytes()
    done = failback("import", "web", "--device", place)
    assert done.code == code, done.err
    for text in says:
        assert text in done.err
    assert len(done.err.splitlines()) == 2
    assert backing.read_bytes() == before


def test_7_another_size(exported: Path, device: str, backing: Path, failback: Run) -> None:
    refused(failback, backing, f"0={device}:size={SIZE + 512}", 7, device, f"has {SIZE} bytes, not {SIZE + 512}")


def test_7_another_serial(
    exported: Path, device: str, backing: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    refused(failback, backing, f"0={device}:serial=WD-1", 7, device, "serial number is not WD-1")
    monkeypatch.setattr(BlockDevice, "serials", lambda self: ["WD-2"])
    refused(failback, backing, f"0={device}:serial=WD-1", 7, device, "known: WD-2")
    assert failback("import", "web", "--device", f"0={device}:serial=wd2").code == 0
    assert holds(device, exported)


def test_7_too_small(exported: Path, tmp_path: Path, failback: Run) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"precious" * (CHUNK // 8))
    with loop(small) as device:
        refused(failback, small, f"0={device}:size={CHUNK}", 7, device, "large enough")


@pytest.mark.parametrize("options", [(), ("-o", "ro")], ids=["read-write", "read-only"])
def test_7_mounted(exported: Path, backing: Path, tmp_path: Path, options: tuple[str, ...], failback: Run) -> None:
    run("mkfs.ext4", "-q", "-F", backing)
    with loop(backing) as device, mounted(device, tmp_path / "mnt", *options):
        (tmp_path / "mnt").stat()
        done = failback("import", "web", "--device", f"0={device}:size={SIZE}")
        assert done.code == 7
        assert f"mounted at {tmp_path / 'mnt'}" in done.err
        assert "Unmount it" in done.err
    run("fsck.ext4", "-fn", backing)


def test_7_a_device_that_is_gone(exported: Path, backing: Path, tmp_path: Path, failback: Run) -> None:
    device = tmp_path / "gone"
    os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(7, 250))  # a number that no other test's device gets
    refused(failback, backing, f"0={device}:size={SIZE}", 7, str(device))


def test_2_a_device_named_once(exported: Path, device: str, backing: Path, failback: Run) -> None:
    refused(failback, backing, f"0={device}", 2, "size=")
    refused(failback, backing, f"0={device}:size=", 2, "size=")
    refused(failback, backing, f"0={device}:size=4M", 2, "4M")
    refused(failback, backing, f"7={device}:size={SIZE}", 2, "no disk 7")


def test_7_a_file_is_not_taken_for_a_device(exported: Path, backing: Path, failback: Run) -> None:
    refused(failback, backing, f"0={backing}:size={SIZE}", 7, str(backing))


def test_7_no_device_at_all(exported: Path, tmp_path: Path, failback: Run) -> None:
    path = tmp_path / "sdz"
    done = failback("import", "web", "--device", f"0={path}:size={SIZE}")
    assert done.code == 7
    assert str(path) in done.err
    assert not path.exists()
