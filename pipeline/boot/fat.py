"""A FAT file system within a disk image, made without mounting anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pipeline.boot.command import run


class Span(Protocol):
    """A place on a disk, in bytes."""

    @property
    def start(self) -> int: ...

    @property
    def size(self) -> int: ...


def make_fat(disk: Path, place: Span, *, label: str, number: int, files: Mapping[str, Path]) -> None:
    """FAT with `files`, by their paths in it; `number` is its 32-bit serial number."""
    at = f"{disk}@@{place.start}"
    run("mformat", "-i", at, "-T", str(place.size // 512), "-v", label, "-N", f"{number:08x}", "::")
    for folder in sorted({folder for name in files for folder in Path(name).parents if folder != Path()}):
        run("mmd", "-i", at, f"::/{folder}")
    for name, file in files.items():
        run("mcopy", "-i", at, file, f"::/{name}")
