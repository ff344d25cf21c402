"""Disks that a machine has before they are here: each is served over NBD by a process of its own, `failback serve`.

A folder per disk in the place, `served/disk0` ..., is the server's state folder (pipeline.serve): what the guest
writes, how far the disk is filled. It is there as long as the disk is served; a disk that is filled becomes an overlay
like any other before the next start (`take_over`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from importers.qemu.definition import Definition, DiskDefinition, Node, overlay_of
from importers.qemu.folder import Folder, Record, delete
from importers.qemu.guard import touched
from importers.qemu.machine import make_overlay
from importers.qemu.process import running
from importers.qemu.programs import qemu_img
from pipeline.errors import TargetError
from pipeline.serve.finish import drop, to_layer
from pipeline.serve.overlay import read_head
from pipeline.target import Context
from pipeline.transfer.stage import Stage as Known

SOCKET = "nbd.sock"
LOG = "server.log"
_START_SECONDS = 60.0
_END_SECONDS = 60.0
_STEP = 0.05
_LEAST_MEMORY_MIB = 64


def folder_of(place: Folder, number: int) -> Path:
    return place.path / "served" / f"disk{number}"


def node_of(number: int) -> Node:
    """The disk as its machine sees it."""
    return Node(file=f"../served/disk{number}/{SOCKET}", format="nbd")


def served(place: Folder, record: Record) -> list[int]:
    """Numbers of the disks that are served, or were when the server was killed."""
    return [disk.number for disk in record.disks if folder_of(place, disk.number).is_dir()]


def filled(place: Folder, record: Record, number: int) -> bool:
    """The disk is here, proved, and nobody wrote to it since. One that somebody wrote to has no server any more when
    this returns: a fresh one believes nothing that is there, and mends it."""
    local = place.local(record, number)
    state = Known(local.known).state
    digests = {disk.number: disk.digest for disk in record.disks}
    if state is None or state.state != "staged" or state.digest != digests[number]:
        return False
    if touched(local):
        end(folder_of(place, number))
        return False
    return True


def serve(context: Context, place: Folder, record: Record, numbers: Sequence[int]) -> None:
    """Start the servers that do not run; returns when all answer. They outlive us. Raises TargetError."""
    for number in numbers:
        where = folder_of(place, number)
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not answers(where):
            _spawn(context, place, record, number, memory=context.memory // len(numbers))
    for number in numbers:
        _await(context, folder_of(place, number))


def _spawn(context: Context, place: Folder, record: Record, number: int, *, memory: int) -> None:
    where, local = folder_of(place, number), place.local(record, number)
    command = [
        *context.again,
        *("serve", f"{record.machine}@{record.sequence}", "--disk", str(number), "--state", str(where)),
        # Short, however long the folder's name is; the server works in the folder.
        *("--socket", f"/proc/self/cwd/{SOCKET}"),
        *("--fill", str(local.path), "--known", str(local.known)),
    ]
    environment = os.environ | {"FAILBACK_MEMORY_MIB": str(max(memory >> 20, _LEAST_MEMORY_MIB))}
    with (where / LOG).open("wb") as log:
        subprocess.run(
            ["setsid", "--fork", *command],
            cwd=where,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            check=True,
        )


def answers(where: Path) -> bool:
    """Whether somebody listens at the socket in this folder."""
    directory = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except OSError:
        return False
    finally:
        os.close(directory)
    return True


def _await(context: Context, where: Path) -> None:
    end, seen = time.monotonic() + _START_SECONDS, False
    while not answers(where):
        with running(where, "serve") as process:
            alive = process is not None
        if (seen and not alive) or time.monotonic() > end:
            said = (where / LOG).read_text(errors="replace").strip() or "it gave no reason"
            raise TargetError(f"the server of {where.name} did not start: {said}", remedy=f"see {where / LOG}")
        seen = seen or alive
        context.control.check()
        time.sleep(_STEP)


def end(where: Path) -> None:
    """No server works in this folder any more. What it acknowledged is there."""
    with running(where, "serve") as process:
        if process is not None:
            process.terminate()
            if not process.wait(_END_SECONDS):
                process.kill()


def forget(place: Folder, record: Record) -> None:
    """No disk is served any more; what guests wrote there is gone. The disks stay as far as they are filled."""
    for number in served(place, record):
        end(folder_of(place, number))
        drop(folder_of(place, number))
        delete(folder_of(place, number))


def take_over(place: Folder, record: Record, folder: Path, machine: Definition) -> Definition:
    """The machine, off, with overlays in place of those served disks that are filled by now.

    After it, call `describe` and then `release`. May be cut short and repeated: what the guest wrote is with the
    server until it is in the overlay.
    """
    disks = tuple(
        _taken(place, record, folder, disk)
        if disk.node.format == "nbd" and filled(place, record, disk.number)
        else disk
        for disk in machine.disks
    )
    return machine.model_copy(update={"disks": disks})


def _taken(place: Folder, record: Record, folder: Path, disk: DiskDefinition) -> DiskDefinition:
    where, local = folder_of(place, disk.number), place.local(record, disk.number)
    node = overlay_of(disk.number)
    end(where)
    if read_head(where) is not None:
        to_layer(where, local.path, folder / node.file, known=local.known)
        qemu_img("rebase", "-u", "-f", "qcow2", "-b", disk.base.file, "-F", disk.base.format, node.file, folder=folder)
    elif not (folder / node.file).exists():
        make_overlay(folder, node, disk.base, disk.size)
    return disk.model_copy(update={"node": node})


def release(place: Folder, record: Record, machine: Definition) -> None:
    """Nothing is left of the servers of disks that the machine does not use by them."""
    in_use = {disk.number for disk in machine.disks if disk.node.format == "nbd"}
    for number in served(place, record):
        if number not in in_use:
            end(folder_of(place, number))
            delete(folder_of(place, number))
