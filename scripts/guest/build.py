"""Build: a recipe becomes disks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.boot.cache import Cache, default_folder, digest
from pipeline.boot.command import run
from pipeline.boot.fat import make_fat
from pipeline.boot.grub import make_uefi_loader, search_script, write_bios_loader
from pipeline.errors import UsageError
from scripts.guest.filesystems import make_ext4
from scripts.guest.loader import configuration
from scripts.guest.partitions import Partition, Use, make_disk
from scripts.guest.parts import Parts, make_parts
from scripts.guest.recipe import MIB, Firmware, Mode, Recipe, Role

_USES: dict[Role, tuple[Use, ...]] = {
    "system": ("loader", "root"),
    "loader": ("loader",),
    "root": ("root",),
    "data": ("data",),
}


@dataclass(frozen=True, slots=True)
class GuestDisks:
    """A guest that can be booted: its disks in the order of the recipe, the first of them the one to boot from."""

    recipe: Recipe
    disks: tuple[Path, ...]
    ssh_key: Path
    """Private key in OpenSSH's format that opens the guest's account `root`."""
    ssh_host_key: Path
    """What the guest's SSH service shows: `TYPE KEY`, the end of a line of known_hosts."""


def build_guest(
    folder: Path,
    *,
    firmware: Firmware = "bios",
    disks: Sequence[Role] = ("system",),
    mode: Mode = "normal",
    name: str = "guest",
    size: int = 512 * MIB,
    cache: Path | None = None,
) -> GuestDisks:
    """Make a guest's disks in `folder`, as `ROLE.raw`, and its keys, as `ssh-key` and `ssh-host-key`.

    Replaces what is there. Needs no root. The first time it fetches packages (about 80 MB), later it copies what it
    made before. Arguments as in Recipe; `cache` is `~/.cache/failback/guest` when not given. Raises UsageError and
    MediumError.
    """
    recipe = Recipe(firmware, tuple(disks), mode, name, size)
    guest = GuestDisks(
        recipe,
        disks=tuple(folder / f"{role}.raw" for role in recipe.disks),
        ssh_key=folder / "ssh-key",
        ssh_host_key=folder / "ssh-host-key",
    )
    make_guest(guest, cache=cache)
    return guest


def make_guest(guest: GuestDisks, *, cache: Path | None = None) -> None:
    """Make what `guest` says, in the places that it names; see build_guest."""
    places = (*guest.disks, guest.ssh_key, guest.ssh_host_key)
    if len({place.absolute() for place in places}) < len(places):
        raise UsageError("a guest's disks and keys can't share a file", remedy="name another file for each")
    store = Cache(cache or default_folder())
    with store.locked():
        parts = make_parts(store)
        made = store.entry(digest(parts.digest, guest.recipe), lambda place: _make(place, guest.recipe, parts))
        sources = (*(made / f"{role}.raw" for role in guest.recipe.disks), parts.user_key, parts.host_key)
        for source, place in zip(sources, places, strict=True):
            _copy(source, place)


def _make(place: Path, recipe: Recipe, parts: Parts) -> None:
    for role in recipe.disks:
        disk = place / f"{role}.raw"
        for partition in make_disk(disk, recipe, _USES[role]):
            with tempfile.TemporaryDirectory(dir=place) as scratch:
                _FILL[partition.use](disk, partition, recipe, parts, Path(scratch))
        run("fallocate", "--dig-holes", disk)


def _fill_loader(disk: Path, partition: Partition, recipe: Recipe, parts: Parts, scratch: Path) -> None:
    number = recipe.uuid("loader").fields[0]
    (scratch / "search").write_text(search_script(number))
    (scratch / "grub.cfg").write_text(configuration(recipe))
    files = {"vmlinuz": parts.kernel, "initrd.img": parts.initramfs, "grub/grub.cfg": scratch / "grub.cfg"}
    if recipe.mode != "no-loader" and recipe.firmware == "bios":
        write_bios_loader(disk, grub=parts.grub, search=scratch / "search", scratch=scratch)
    elif recipe.mode != "no-loader":
        make_uefi_loader(scratch / "loader", grub=parts.grub, search=scratch / "search")
        files["EFI/BOOT/BOOTX64.EFI"] = scratch / "loader"
    make_fat(disk, partition, label="LOADER", number=number, files=files)


def _fill_root(disk: Path, partition: Partition, recipe: Recipe, parts: Parts, scratch: Path) -> None:
    tree = scratch / "root"
    shutil.copytree(parts.root, tree, symlinks=True)
    (tree / "etc/hostname").write_text(f"{recipe.name}\n")
    if "data" in recipe.disks:
        (tree / "etc/failback-guest/data").write_text(f"{recipe.uuid('data')}\n")
    make_ext4(disk, partition, label="guest-root", number=recipe.uuid("root"), tree=tree)


def _fill_data(disk: Path, partition: Partition, recipe: Recipe, parts: Parts, scratch: Path) -> None:
    make_ext4(disk, partition, label="guest-data", number=recipe.uuid("data"), tree=scratch)


_FILL = {"loader": _fill_loader, "root": _fill_root, "data": _fill_data}


def _copy(source: Path, target: Path) -> None:
    """Replace `target` by a copy, whole or not at all; holes stay holes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    run("cp", "--sparse=always", "--reflink=auto", "--preserve=mode", source, partial)
    partial.replace(target)
