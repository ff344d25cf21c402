"""Userland: what is on the root file system of every guest."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.boot.busybox import install_busybox
from pipeline.boot.libraries import libraries, loader

PROGRAMS = ("usr/sbin/dropbear", "usr/sbin/qemu-ga")
"""Programs that come with shared libraries; everything else is busybox."""

_FOLDERS = ("data", "dev", "etc/dropbear", "proc", "root/.ssh", "run", "sys", "tmp", "var/lib/failback-guest")


def make_userland(tree: Path, *, packages: Path, files: Path) -> None:
    """Fill `tree` from a tree of unpacked packages and from the project's own `files`."""
    shutil.copytree(files, tree)
    for folder in _FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    install_busybox(packages / "bin/busybox", tree)
    for name in PROGRAMS:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(packages / name, tree / name)
        for library in libraries(packages, packages / name):
            (tree / "lib").mkdir(exist_ok=True)
            shutil.copy(library, tree / "lib" / library.name)
    (tree / "lib64").mkdir()
    (tree / "lib64" / loader(packages).name).symlink_to(f"/lib/{loader(packages).name}")
