"""File systems, made within a disk image without mounting anything."""

from __future__ import annotations

import uuid
from pathlib import Path

from pipeline.boot.command import run
from scripts.guest.partitions import Partition

_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,extra_isize,"
    "metadata_csum"
)
"""Named one by one: which are the default differs between hosts, and an older kernel refuses newer ones."""


def make_ext4(disk: Path, partition: Partition, *, label: str, number: uuid.UUID, tree: Path) -> None:
    """ext4 with the files of `tree`, all of them owned by root."""
    offset = f"offset={partition.start},root_owner=0:0,hash_seed={number},nodiscard,lazy_itable_init=1"
    options = ["-q", "-F", "-t", "ext4", "-O", _FEATURES, "-I", "256", "-b", "4096", "-m", "0"]
    run(
        "mke2fs", *options, "-E", offset, "-L", label, "-U", str(number), "-d", tree, disk, f"{partition.size // 1024}k"
    )
    # The files have the owner they have here.
    names = [str(path.relative_to(tree)) for path in tree.rglob("*")]
    owners = "".join(f'sif "/{name}" uid 0\nsif "/{name}" gid 0\n' for name in names)
    run("debugfs", "-w", "-f", "-", f"{disk}?offset={partition.start}", text=owners)
