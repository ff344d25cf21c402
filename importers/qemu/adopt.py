"""Disk files of somebody else that become a place's."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from importers.qemu.definition import Node
from importers.qemu.folder import Folder, Record, all_folders
from importers.qemu.programs import find_program
from pipeline.errors import TargetBusy, Unsupported
from pipeline.transfer.mark import ATTRIBUTE, put_mark
from pipeline.transfer.stage import Stage as Known
from pipeline.transfer.stage import explained


def nodes_of(reference: str) -> tuple[Node, ...]:
    """`reference`: paths of the disks in their order, with commas between. Raises Unsupported for what is no such
    disk."""
    paths = [Path(part.strip()).absolute() for part in reference.split(",")]
    return tuple(Node(file=str(path), format=_format(path)) for path in paths)


def refuse_adopted(root: Path, nodes: Sequence[Node], marker: uuid.UUID) -> None:
    """Raises TargetBusy when another place has one of the disks."""
    files = {node.file for node in nodes}
    for folder in all_folders(root):
        record = folder.read() if folder.marker != marker else None
        for node in record.adopted.values() if record else ():
            if node.file in files:
                raise TargetBusy(f"{node.file} belongs to {folder.path}", remedy="remove that place first")


def adopt_disks(folder: Folder, record: Record, nodes: Sequence[Node]) -> Record:
    """They are hashed when they are staged. Raises TargetBusy when the place took over others before."""
    adopted = dict(enumerate(nodes))
    if record.adopted == adopted:
        return record
    if record.adopted:
        raise TargetBusy(f"{folder.path} took over other disks before", remedy="remove the place first")
    (folder.stage / "known").mkdir(parents=True, exist_ok=True, mode=0o700)
    with explained(folder.stage):
        for number, node in adopted.items():
            known = Known(folder.stage / "known" / f"disk{number}")
            known.folder.mkdir(exist_ok=True, mode=0o700)
            put_mark(Path(node.file), known)
            known.write("stage.json", b"")  # ours to write from now on; what it holds is not known
    record = record.model_copy(update={"adopted": adopted})
    folder.write(record)
    return record


def let_go(record: Record) -> None:
    """What was adopted is somebody else's again."""
    for node in record.adopted.values():
        with suppress(OSError):
            os.removexattr(node.file, ATTRIBUTE)


def _format(path: Path) -> Literal["raw", "qcow2"]:
    """raw or qcow2. The name decides: what a raw disk holds is up to its guest, and may look like anything."""
    if not path.is_file():
        raise Unsupported(
            f"{path} is no file", remedy="name a raw or qcow2 file; a block device is restored with --to files"
        )
    asked = subprocess.run(
        [find_program("qemu-img"), "info", "--output=json", "--force-share", "--", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise Unsupported(f"{path} cannot be taken over: {asked.stderr.strip()}")
    about = json.loads(asked.stdout)
    wanted: Literal["raw", "qcow2"] = "qcow2" if path.suffix == ".qcow2" else "raw"
    if about["format"] != wanted:
        raise Unsupported(
            f"{path} is {about['format']} and not {wanted}, as its name has it",
            remedy="rename it to .qcow2 if it is one; convert other formats with `qemu-img convert -O raw`",
        )
    for key, what in (
        ("backing-filename", "has a backing file"),
        ("encrypted", "is encrypted"),
        ("snapshots", "has snapshots"),
    ):
        if about.get(key):
            raise Unsupported(
                f"{path} {what}: it cannot be written without harm to that", remedy="convert it with `qemu-img convert`"
            )
    return wanted
