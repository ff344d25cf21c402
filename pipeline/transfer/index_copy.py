"""Keeping the local copy of a disk's index: where it lies, and how it is brought up to a point."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from manifests.entry import empty_rows, same_ids
from manifests.manifest import Disk, Manifest
from manifests.names import encode_machine
from manifests.tree import LEAF_POSITIONS
from pipeline.catalogue import load
from pipeline.errors import CatalogueError, CorruptObject, FormatError
from pipeline.repository import Repository
from pipeline.transfer.index_file import Head, IndexFile, StaleCopy
from pipeline.transfer.index_reader import Block, IndexReader, differences


def copy_folder(state: Path, repository: Repository, machine: str, number: int) -> Path:
    """Where the copy of the newest known point of a machine's disk lies."""
    return state / repository.document.id / encode_machine(machine) / f"disk{number}"


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether the copy in `folder` is this export's until the end. Else another one of this host has it: one that was
    taken for dead may go on, and would find entries changed below its hands. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def known_sequence(folder: Path) -> int:
    """The sequence that the copy in `folder` stands for; 0 when there is none."""
    try:
        head, file = IndexFile.open(folder)
    except StaleCopy:
        return 0
    file.close()
    return head.sequence


def head_of(repository: Repository, manifest: Manifest, disk: Disk, packs: int) -> Head:
    """The head of a copy of `disk`."""
    return Head(
        repository=repository.document.id,
        lineage=disk.lineage,
        size=disk.size,
        chunk_size=disk.chunk_size,
        machine=manifest.machine.name,
        sequence=manifest.sequence,
        number=disk.number,
        digest=disk.digest,
        packs=packs,
    )


def open_copy(repository: Repository, manifest: Manifest, disk: Disk, folder: Path) -> IndexFile:
    """A copy of `disk`'s index in `folder`: the one that is there, brought up to date, or a new one.

    Raises CorruptObject when the repository's index does not give the digest of the manifest.
    """
    try:
        head, file = IndexFile.open(folder)
    except StaleCopy:
        return rebuild(repository, manifest, disk, folder)
    wanted = head_of(repository, manifest, disk, head.packs)
    if head == wanted:
        return file
    comparable = (head.repository, head.lineage, head.size, head.chunk_size)
    if comparable == (wanted.repository, wanted.lineage, wanted.size, wanted.chunk_size):
        try:
            return _roll(repository, manifest, disk, file, head)
        except (StaleCopy, CatalogueError, FormatError):
            pass  # the earlier point may be forgotten, collected or damaged: this one is what counts
        except BaseException:
            file.close()
            raise
    file.close()
    return rebuild(repository, manifest, disk, folder)


def _roll(repository: Repository, manifest: Manifest, disk: Disk, file: IndexFile, head: Head) -> IndexFile:
    """Bring a copy of an earlier point up to `disk` by what differs between the two indexes."""
    before = load(repository, head.machine, head.sequence)
    disks = before.manifest.disks if before else ()
    old = next((d for d in disks if d.number == head.number), None)
    if old is None or old.digest != head.digest:
        raise StaleCopy("the copy's point is not there")
    file.invalidate()
    for positions, rows in differences(
        IndexReader(repository, old, file.packs), IndexReader(repository, disk, file.packs), moved=True
    ):
        file.apply(positions, rows)
    if file.digest(size=disk.size, chunk_size=disk.chunk_size) != disk.digest:
        raise StaleCopy("the differences do not lead to the digest")
    file.commit(head_of(repository, manifest, disk, len(file.packs)))
    return file


def changed_only(copy: IndexFile, blocks: Iterable[Block]) -> Iterator[Block]:
    """Those of the blocks' entries whose chunk is not the one that `copy` has there. Raises StaleCopy.

    A chunk that an export sent again, so that a mostly dead pack could die, is no difference of content.
    """
    for positions, rows in blocks:
        differ = ~same_ids(copy.lookup(positions), rows)
        if differ.any():
            yield positions[differ], rows[differ]


def rebuild(repository: Repository, manifest: Manifest, disk: Disk, folder: Path) -> IndexFile:
    """A new copy, read from the repository."""
    shutil.rmtree(folder, ignore_errors=True)
    file = IndexFile.create(folder, disk.positions)
    try:
        for block in IndexReader(repository, disk, file.packs).windows():
            fill(file, block)
        if file.digest(size=disk.size, chunk_size=disk.chunk_size) != disk.digest:
            raise CorruptObject(
                f"the index of {manifest.label} disk {disk.number} does not give the digest in its manifest",
                remedy="`failback verify --read` tells what is damaged; export with --full to begin anew",
            )
        file.commit(head_of(repository, manifest, disk, len(file.packs)))
    except BaseException:
        file.close()
        raise
    return file


def fill(file: IndexFile, block: Block) -> None:
    """Store the next window of an index, whose ends are ends of leaves."""
    positions, rows = block
    leaves = positions // LEAF_POSITIONS
    for leaf in np.unique(leaves):
        at = leaves == leaf
        first = int(leaf) * LEAF_POSITIONS
        all_rows = empty_rows(file.leaf_size(int(leaf)))
        all_rows[(positions[at] - first).astype(np.intp)] = rows[at]
        file.store(first, all_rows)
