"""Initramfs: busybox, our script, and the drivers to find the root file system."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.boot.busybox import install_busybox
from pipeline.boot.initramfs import add_modules, pack
from pipeline.boot.kernel import Kernel


def make_initramfs(archive: Path, *, busybox: Path, script: Path, kernel: Kernel, modules: list[str]) -> None:
    """Write the archive, compressed, its files owned by root."""
    tree = archive.with_suffix(".tree")
    install_busybox(busybox, tree)
    shutil.copy(script, tree / "init")
    add_modules(tree, busybox=busybox, kernel=kernel, modules=modules)
    # A quarter to load for half a second of an emulated processor; UEFI's GRUB needs less memory, too.
    pack(tree, archive, busybox=busybox, level=19)
    shutil.rmtree(tree)
