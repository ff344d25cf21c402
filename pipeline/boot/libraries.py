"""Shared libraries: what a program from a package needs, found among unpacked packages and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.boot.command import run
from pipeline.boot.errors import MediumError

_LIBRARY = re.compile(r"=> (/\S+)|^\s*(/\S+) \(0x", re.MULTILINE)
_REMEDY = "add their packages to those that are unpacked"


def loader(packages: Path) -> Path:
    """The dynamic loader among the unpacked packages: it runs their programs with their own libraries."""
    found = sorted(packages.glob("**/x86_64-linux-gnu/ld-linux-x86-64.so.2"))
    if not found:
        raise MediumError("libc6 has no dynamic loader for x86-64", remedy="the packages have to be those of amd64")
    return found[0]


def library_path(packages: Path) -> str:
    """Where the unpacked packages have their libraries, as the dynamic loader wants to be told."""
    return f"{packages}/lib/x86_64-linux-gnu:{packages}/usr/lib/x86_64-linux-gnu"


def libraries(packages: Path, program: Path, *, own: Path | None = None) -> list[Path]:
    """The loader and every library that a program needs. Those that it finds below `own` are its own, and left out."""
    listed = run(loader(packages), "--library-path", library_path(packages), "--list", program)
    found = [Path(one or other) for one, other in _LIBRARY.findall(listed)]
    found = [path for path in found if own is None or not path.resolve().is_relative_to(own.resolve())]
    foreign = [path for path in found if not path.is_relative_to(packages)]
    if "not found" in listed or foreign:
        raise MediumError(f"{program.name} needs libraries that no package brought:\n{listed}", remedy=_REMEDY)
    return [loader(packages), *found]
