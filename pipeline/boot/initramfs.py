"""Initramfs: a tree of files that the kernel unpacks into memory.

Source: kernel, Documentation/filesystems/ramfs-rootfs-initramfs.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import zstandard

from pipeline.boot.command import run
from pipeline.boot.kernel import Kernel, with_needed


def add_modules(tree: Path, *, busybox: Path, kernel: Kernel, modules: Iterable[str]) -> None:
    """Put kernel modules, and what they depend on, where modprobe finds them in `tree`."""
    home = tree / "lib" / "modules" / kernel.release
    for path, data in with_needed(kernel, modules):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(data)
    run(busybox, "depmod", "-b", tree, kernel.release)


def pack(tree: Path, archive: Path, *, busybox: Path, level: int) -> None:
    """Write the archive of `tree`, compressed, its files owned by root. `level` is zstd's, 19 at most: the kernel
    has no room for the windows of higher ones."""
    plain = archive.with_suffix(".cpio")
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    run(busybox, "cpio", "-o", "-H", "newc", "-R", "0:0", "-F", plain, text=names, folder=tree)
    compressor = zstandard.ZstdCompressor(level=level, threads=-1)
    with plain.open("rb") as source, archive.open("wb") as target:
        compressor.copy_stream(source, target, size=plain.stat().st_size)
    plain.unlink()


def modules_of(text: str) -> list[str]:
    """Names in a file of module names: one a line, `#` before a comment."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]
