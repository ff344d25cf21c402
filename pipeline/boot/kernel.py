"""Kernel: the distribution's own, and those of its modules that the guest needs."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from pipeline.boot.errors import MediumError

_FIELD = re.compile(rb"\0depends=([^\0]*)\0")
"""In a module's section .modinfo: NUL-terminated `key=value` strings (kernel, include/linux/module.h)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package."""

    release: str
    image: Path
    modules: dict[str, Path]
    """File of each module, by its name with underscores for dashes."""
    builtin: frozenset[str]


def find_kernel(tree: Path) -> Kernel:
    """The kernel in a tree of unpacked packages. Raises MediumError unless there is exactly one."""
    images = sorted(tree.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise MediumError(f"the kernel package holds {len(images)} kernels, not one", remedy="see boot/ in the package")
    release = images[0].name.removeprefix("vmlinuz-")
    (folder,) = (path for path in (tree / "lib/modules" / release, tree / "usr/lib/modules" / release) if path.is_dir())
    files = {_name(path.name): path for path in (folder / "kernel").rglob("*.ko*")}
    lines = (folder / "modules.builtin").read_text().splitlines()
    return Kernel(release, images[0], files, frozenset(_name(line.rpartition("/")[2]) for line in lines))


def with_needed(kernel: Kernel, names: Iterable[str]) -> Iterator[tuple[Path, bytes]]:
    """Path below `/lib/modules/RELEASE` and plain contents of each named module, and of those that they depend on.

    Built-in ones are left out. Raises MediumError for one that the kernel doesn't have.
    """
    open_names = [_name(name) for name in names]
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen or name in kernel.builtin:
            continue
        seen.add(name)
        if name not in kernel.modules:
            raise MediumError(
                f"kernel {kernel.release} has no module {name}", remedy="mend scripts/guest/files/modules"
            )
        path = kernel.modules[name]
        data = _plain(path)
        yield Path("kernel") / f"{name}.ko", data
        field = _FIELD.search(data)
        if field is None:
            raise MediumError(f"{path.name} doesn't say what it depends on", remedy="is the kernel package damaged?")
        open_names += (_name(need) for need in field[1].decode().split(",") if need)


def _plain(path: Path) -> bytes:
    """A module's bytes; some releases of some distributions compress the files."""
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _name(file: str) -> str:
    return file.partition(".ko")[0].replace("-", "_")
