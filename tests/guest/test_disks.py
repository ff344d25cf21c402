"""A guest's disks are what firmware, kernel and file system checkers take them for, and are made once."""

from __future__ import annotations

import json
import lzma
import os
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.boot.cache import Cache
from pipeline.boot.command import run
from pipeline.boot.errors import MediumError
from pipeline.boot.fat import make_fat
from pipeline.boot.kernel import Kernel, with_needed
from pipeline.boot.packages import resolve
from pipeline.errors import UsageError
from scripts.guest import GuestDisks
from scripts.guest.build import make_guest
from scripts.guest.filesystems import make_ext4
from scripts.guest.partitions import Partition
from scripts.guest.recipe import LAYOUTS, MIB, Recipe

Build = Callable[..., GuestDisks]
ROOT = Path(__file__).parents[2]


def table(disk: Path) -> dict[str, Any]:
    """What sfdisk finds on a disk, after it found nothing wrong."""
    run("sfdisk", "--verify", disk)
    found: dict[str, Any] = json.loads(run("sfdisk", "--json", disk))["partitiontable"]
    return found


def start(disk: Path, number: int) -> int:
    """Where a partition begins, in bytes."""
    return int(table(disk)["partitions"][number]["start"]) * 512


def owner(disk: Path, offset: int, path: str) -> tuple[str, str]:
    """User and group of a file in an ext4."""
    shown = run("debugfs", "-R", f'stat "{path}"', f"{disk}?offset={offset}").split()
    return shown[shown.index("User:") + 1], shown[shown.index("Group:") + 1]


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("disks", LAYOUTS)
def test_every_file_system_is_clean_and_in_its_partition(build: Build, firmware: str, disks: tuple[str, ...]) -> None:
    guest = build(firmware=firmware, disks=disks)
    assert [path.stem for path in guest.disks] == list(disks)
    for disk in guest.disks:
        partitions = table(disk)["partitions"]
        assert len(partitions) == (2 if disk.stem == "system" else 1)
        if disk.stem in ("system", "loader"):
            listed = run("mdir", "-b", "-/", "-i", f"{disk}@@{start(disk, 0)}", "::")
            assert {"::/vmlinuz", "::/initrd.img", "::/grub/grub.cfg"} <= set(listed.split())
            assert ("::/EFI/BOOT/BOOTX64.EFI" in listed) == (firmware == "uefi")
        if disk.stem != "loader":
            run("e2fsck", "-fn", f"{disk}?offset={start(disk, len(partitions) - 1)}")


def test_bios_finds_boot_code_and_an_active_partition(build: Build) -> None:
    (disk,) = build(firmware="bios").disks
    assert table(disk)["label"] == "dos"
    assert table(disk)["partitions"][0]["bootable"] is True
    with open(disk, "rb") as file:
        first, second = file.read(512), file.read(512)
    assert first[:2] != b"\0\0"
    assert first[510:] == b"\x55\xaa"
    assert b"GRUB" in first
    # The sector that loads the rest of GRUB: from where, and how many (diskboot.S).
    assert int.from_bytes(second[500:508], "little") == 2
    assert int.from_bytes(second[508:510], "little") > 0


def test_uefi_finds_a_system_partition(build: Build) -> None:
    (disk,) = build(firmware="uefi").disks
    assert table(disk)["label"] == "gpt"
    assert table(disk)["partitions"][0]["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_guest_without_loader_has_none(build: Build, firmware: str) -> None:
    (disk,) = build(firmware=firmware, mode="no-loader").disks
    with open(disk, "rb") as file:
        assert file.read(440).strip(b"\0") == b""
    assert "BOOTX64" not in run("mdir", "-b", "-/", "-i", f"{disk}@@{start(disk, 0)}", "::")


def test_files_in_the_guest_belong_to_root(build: Build) -> None:
    (disk,) = build().disks
    for path in ("/", "/sbin/init", "/root/.ssh/authorized_keys", "/etc/dropbear/dropbear_ed25519_host_key"):
        assert owner(disk, start(disk, 1), path) == ("0", "0")


def test_the_same_guest_again_comes_from_the_cache(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_again(*arguments: object) -> None:
        raise AssertionError("made again")

    contents = [disk.read_bytes() for disk in build(disks=("system", "data"), size=128 * MIB).disks]
    monkeypatch.setattr("scripts.guest.build._make", made_again)
    monkeypatch.setattr("scripts.guest.parts._fill", made_again)
    again = build(disks=("system", "data"), size=128 * MIB)
    assert [disk.read_bytes() for disk in again.disks] == contents
    assert stat.S_IMODE(again.ssh_key.stat().st_mode) == 0o600
    with pytest.raises(AssertionError, match="made again"):
        build(disks=("system", "data"), size=129 * MIB)


def test_a_disk_takes_little_room(build: Build) -> None:
    (disk,) = build().disks
    assert disk.stat().st_size == 512 * MIB
    assert disk.stat().st_blocks * 512 < 64 * MIB


def test_what_a_killed_builder_left_is_removed(build: Build, cache: Path) -> None:
    for folder in (cache / "partial-killed", cache / "packages" / "partial-killed"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x")
    build()
    assert not (cache / "partial-killed").exists()
    assert not (cache / "packages" / "partial-killed").exists()


def test_the_cache_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.boot.cache._KEEP_BYTES", 3 * MIB)
    cache = Cache(tmp_path)

    def fill(folder: Path) -> None:
        (folder / "file").write_bytes(os.urandom(MIB))

    for number, name in enumerate(["old", "used", "new", "newest", "used"]):
        with cache.locked():
            # Times of files are coarser than this loop.
            os.utime(cache.entry(name, fill), (number, time.time() - 100 + number))
    assert {path.name for path in tmp_path.glob("made-*")} == {"made-newest", "made-used"}
    os.utime(tmp_path / "made-used", (0, 0))
    with cache.locked():
        pass
    assert {path.name for path in tmp_path.glob("made-*")} == {"made-newest"}


@pytest.mark.slow
def test_no_privilege_is_needed(tmp_path: Path, build: Build, cache: Path) -> None:
    build()
    own = tmp_path / "cache" / "failback" / "guest"
    own.mkdir(parents=True)
    # Fetching them again is not what is tested.
    run("cp", "-r", cache / "packages", own / "packages")
    out = tmp_path / "disk.raw"
    command = [sys.executable, "-m", "scripts.guest", "build", out]
    if os.geteuid() == 0:
        # Nobody in particular: the owner of these files, who may neither mount nor make devices nor give files away.
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *command]
    environ = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    run("e2fsck", "-fn", f"{out}?offset={start(out, 1)}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files as somebody else")
def test_files_that_somebody_else_owns_belong_to_root_in_the_guest(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a folder").mkdir(parents=True)
    (tree / "a folder" / "file").write_text("x")
    (tree / "link").symlink_to("a folder/file")
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 16 * MIB)
    make_ext4(disk, Partition("root", MIB, 14 * MIB), label="x", number=uuid.uuid4(), tree=tree)
    for path in ("/", "/a folder", "/a folder/file", "/link"):
        assert owner(disk, MIB, path) == ("0", "0")
    run("e2fsck", "-fn", f"{disk}?offset={MIB}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"firmware": "coreboot"}, "no firmware coreboot"),
        ({"disks": ("root",)}, "no guest has the disks root"),
        ({"mode": "explode"}, "no mode explode"),
        ({"name": "a b"}, "can't be named 'a b'"),
        ({"size": MIB}, f"can't have {MIB} bytes"),
        ({"size": 512 * MIB + 1}, "in whole MiB"),
    ],
)
def test_a_recipe_that_makes_no_guest_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**arguments)
    assert said in str(caught.value)


def test_two_disks_cannot_share_a_file(tmp_path: Path) -> None:
    recipe = Recipe(disks=("system", "data"))
    disk = tmp_path / "disk.raw"
    with pytest.raises(UsageError, match="can't share a file"):
        make_guest(GuestDisks(recipe, (disk, disk), ssh_key=tmp_path / "key", ssh_host_key=tmp_path / "host"))


def test_a_package_that_is_not_known_is_named() -> None:
    with pytest.raises(MediumError, match="no-such-package-at-all"):
        resolve(["no-such-package-at-all", "busybox-static"], sections=())


def test_a_missing_tool_is_named_with_its_remedy() -> None:
    with pytest.raises(MediumError, match=r"no-such-tool is not installed(?s:.*)scripts/setup/environment guest"):
        run("no-such-tool")


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    big = tmp_path / "big"
    big.write_bytes(os.urandom(2 * MIB))
    with pytest.raises(MediumError, match="mcopy failed"):
        make_fat(tmp_path / "disk", Partition("loader", 0, MIB), label="X", number=1, files={"big": big})


def test_modules_come_with_what_they_need_whatever_their_compression(tmp_path: Path) -> None:
    def module(needs: str) -> bytes:
        return b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0"

    files = {
        "disk": (tmp_path / "disk.ko.xz", lzma.compress(module("bus-core,ring"))),
        "bus_core": (tmp_path / "bus-core.ko", module("ring")),
        "ring": (tmp_path / "ring.ko.zst", zstandard.compress(module("built_in"))),
    }
    for path, data in files.values():
        path.write_bytes(data)
    kernel = Kernel("6.1", tmp_path / "vmlinuz", {k: v[0] for k, v in files.items()}, frozenset({"built_in"}))
    found = dict(with_needed(kernel, ["disk"]))
    assert found == {
        Path("kernel/disk.ko"): module("bus-core,ring"),
        Path("kernel/bus_core.ko"): module("ring"),
        Path("kernel/ring.ko"): module("built_in"),
    }
    with pytest.raises(MediumError, match="has no module missing"):
        list(with_needed(kernel, ["missing"]))
