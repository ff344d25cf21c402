"""Userland: what is on the root file system of every guest."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from scripts.guest.busybox import install_busybox
from scripts.guest.command import run
from scripts.guest.errors import GuestError

PROGRAMS = ("usr/sbin/dropbear", "usr/sbin/qemu-ga")
"""Programs that come with shared libraries; everything else is busybox."""

_FOLDERS = ("data", "dev", "etc/dropbear", "proc", "root/.ssh", "run", "sys", "tmp", "var/lib/failback-guest")
_LIBRARY = re.compile(r"=> (/\S+)|^\s*(/\S+) \(0x", re.MULTILINE)


def make_userland(tree: Path, *, packages: Path, files: Path) -> None:
    """Fill `tree` from a tree of unpacked packages and from the project's own `files`."""
    shutil.copytree(files, tree)
    for folder in _FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    install_busybox(packages / "bin/busybox", tree)
    for name in PROGRAMS:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(packages / name, tree / name)
        for library in _libraries(packages, packages / name):
            (tree / "lib").mkdir(exist_ok=True)
            shutil.copy(library, tree / "lib" / library.name)
    (tree / "lib64").mkdir()
    (tree / "lib64" / loader(packages).name).symlink_to(f"/lib/{loader(packages).name}")


def loader(packages: Path) -> Path:
    """The dynamic loader among the unpacked packages: it runs their programs with their own libraries."""
    found = sorted(packages.glob("**/x86_64-linux-gnu/ld-linux-x86-64.so.2"))
    if not found:
        raise GuestError("libc6 has no dynamic loader for x86-64", remedy="the guest needs an amd64 distribution")
    return found[0]


def library_path(packages: Path) -> str:
    """Where the unpacked packages have their libraries, as the dynamic loader wants to be told."""
    return f"{packages}/lib/x86_64-linux-gnu:{packages}/usr/lib/x86_64-linux-gnu"


def _libraries(packages: Path, program: Path) -> list[Path]:
    """The loader and every library that a program needs."""
    listed = run(loader(packages), "--library-path", library_path(packages), "--list", program)
    found = [Path(one or other) for one, other in _LIBRARY.findall(listed)]
    foreign = [path for path in found if not path.is_relative_to(packages)]
    if "not found" in listed or foreign:
        raise GuestError(f"{program.name} needs libraries that no package brought:\n{listed}", remedy="see packages.py")
    return [loader(packages), *found]
