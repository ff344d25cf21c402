"""Initramfs: a static busybox, one script, and the drivers that find the root file system on any bus."""

from __future__ import annotations

import shutil
from pathlib import Path

import zstandard

from scripts.guest.busybox import install_busybox
from scripts.guest.command import run
from scripts.guest.kernel import Kernel, with_needed


def make_initramfs(archive: Path, *, busybox: Path, script: Path, kernel: Kernel, modules: list[str]) -> None:
    """Write the archive, compressed, its files owned by root."""
    tree = archive.with_suffix(".tree")
    plain = archive.with_suffix(".cpio")
    install_busybox(busybox, tree)
    shutil.copy(script, tree / "init")
    home = tree / "lib" / "modules" / kernel.release
    for path, data in with_needed(kernel, modules):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)
    run(busybox, "depmod", "-b", tree, kernel.release)
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    run(busybox, "cpio", "-o", "-H", "newc", "-R", "0:0", "-F", plain, text=names, folder=tree)
    # A quarter to load for half a second of an emulated processor; UEFI's GRUB needs less memory, too.
    archive.write_bytes(zstandard.ZstdCompressor(level=19).compress(plain.read_bytes()))
    plain.unlink()
    shutil.rmtree(tree)
