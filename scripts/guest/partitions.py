"""Partitions: an empty disk with a partition table, as sfdisk writes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.boot.command import run
from pipeline.boot.grub import FIRST
from scripts.guest.recipe import MIB, Recipe

_TAIL = MIB
"""Left free at the end of a disk: the second copy of a GPT."""
_LOADER_SIZE = 48 * MIB
_SECTOR = 512

Use = Literal["loader", "root", "data"]
_TYPES = {
    ("bios", "loader"): "e",
    ("bios", "root"): "83",
    ("bios", "data"): "83",
    ("uefi", "loader"): "U",
    ("uefi", "root"): "L",
    ("uefi", "data"): "L",
}
"""sfdisk's names: FAT16 with LBA, Linux; EFI system partition, Linux."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A place on a disk, in bytes."""

    use: Use
    start: int
    size: int


def make_disk(path: Path, recipe: Recipe, uses: Sequence[Use]) -> list[Partition]:
    """Write a new sparse disk with an MBR (BIOS) or a GPT (UEFI); a loader's partition has a fixed size."""
    size = FIRST + _LOADER_SIZE + _TAIL if list(uses) == ["loader"] else recipe.size
    partitions = []
    start = FIRST
    for use in uses:
        length = _LOADER_SIZE if use == "loader" else size - _TAIL - start
        partitions.append(Partition(use, start, length))
        start += length
    with open(path, "xb") as file:
        os.truncate(file.fileno(), size)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path, text=_table(recipe, path.stem, partitions))
    return partitions


def _table(recipe: Recipe, disk: str, partitions: Sequence[Partition]) -> str:
    """The input of sfdisk."""
    number = recipe.uuid(f"disk {disk}")
    if recipe.firmware == "bios":
        lines = ["label: dos", f"label-id: 0x{number.fields[0]:08x}"]
    else:
        lines = ["label: gpt", f"label-id: {number}"]
    for partition in partitions:
        line = f"start={partition.start // _SECTOR}, size={partition.size // _SECTOR}"
        line += f", type={_TYPES[recipe.firmware, partition.use]}"
        if recipe.firmware == "uefi":
            line += f", uuid={recipe.uuid(f'partition {disk} {partition.use}')}"
        elif partition.use == "loader":
            line += ", bootable"
        lines.append(line)
    return "\n".join(lines) + "\n"
