"""The end of a served disk: what the guest wrote is kept in the stage, becomes a layer over it, or is dropped.

Nobody serves it any more: these hold the locks that a server holds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import TargetError, TargetMismatch
from pipeline.nbd.server import tool
from pipeline.serve.local import stage_of
from pipeline.serve.lock import StateLock
from pipeline.serve.overlay import Overlay, mark_merging, open_overlay, read_head, remove_overlay, sync_folder
from pipeline.transfer.stage import KEPT, Stage, explained
from pipeline.writers.base import BlockWriter
from pipeline.writers.image import ImageWriter
from pipeline.writers.raw import RawWriter, open_raw

_STEP = 1 << 20
_CREATE_SECONDS = 120


def drop(state: Path) -> bool:
    """Forget what the guest wrote; whether there was anything. The stage is not touched, it never held any of it.

    Raises TargetBusy while a server runs, TargetMismatch when a merge was cut short: some of it is in the stage.
    """
    lock = StateLock(state)
    try:
        if (state / "overlay" / "merging").exists():
            raise TargetMismatch(
                f"what is in {state} was being merged into a disk, and the disk has some of it",
                remedy="merge it again: that goes on; a disk without it comes from the repository",
            )
        there = (state / "overlay").exists()
        remove_overlay(state)
        return there
    finally:
        lock.release()


def merge(state: Path, path: Path, *, known: Path | None = None) -> int:
    """Write what the guest wrote into the stage at `path`, which from then on equals no point; returns bytes written.
    `known` is the folder of what is known of it, as in `stage_of`.

    Killed at any moment, the same call goes on: the overlay is there until all of it is in the stage and flushed, and
    the stage says `kept` before its first byte changes. Raises TargetMismatch when the stage is not filled, TargetBusy
    while a server or a restore has either of them, TargetError.
    """
    with _finishing(state, path, known) as found:
        if found is None:
            return 0
        found.check(may_be_kept=True)
        mark_merging(state)
        with explained(found.stage.folder):
            assert found.stage.state is not None  # checked
            found.stage.save(replace(found.stage.state, state=KEPT, guard=""))
        written = _copy(found.overlay, found.writer)
        remove_overlay(state)
        return written


def to_layer(state: Path, path: Path, layer: Path, *, known: Path | None = None) -> int:
    """Make `layer`, a qcow2 image over the filled stage at `path`, hold what the guest wrote; returns bytes written.

    From then on QEMU needs no server: the machine is started on `layer`. As long as the overlay is there it is what
    counts, and `layer` is made anew: after a kill call it again. Raises as `merge` does.
    """
    with _finishing(state, path, known) as found:
        if found is None:
            return 0
        found.check()
        found.writer.close()  # QEMU opens it too, to read
        temporary = layer.with_name(layer.name + ".new")
        temporary.unlink(missing_ok=True)
        _create(temporary, path, -(-found.overlay.size // 512) * 512)
        writer = ImageWriter(str(temporary), "qcow2", fresh=True)
        try:
            written = _copy(found.overlay, writer)
        finally:
            writer.close()
        with explained(found.stage.folder):
            fd = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(layer)
            sync_folder(layer.parent)
        remove_overlay(state)
        return written


@dataclass(frozen=True, slots=True)
class _Found:
    stage: Stage
    overlay: Overlay
    writer: RawWriter

    def check(self, *, may_be_kept: bool = False) -> None:
        """Raises TargetMismatch when the stage is not the overlay's, or not whole."""
        state, head = self.stage.state, self.overlay.head
        mine = state is not None and (state.repository, state.digest, state.size) == (
            head.repository,
            head.digest,
            head.size,
        )
        if state is not None and mine and may_be_kept and state.state == KEPT:
            return  # an earlier merge was cut short
        if state is None or not mine or state.state != "staged":
            raise TargetMismatch(
                f"{self.writer.name} is not the filled stage of {head.label}",
                remedy="let the server fill it, or `failback import` it, and try again",
            )
        if state.guard != self.writer.guard():
            raise TargetMismatch(
                f"somebody wrote to {self.writer.name} since it was staged",
                remedy="`failback import` it again: that mends it",
            )


@contextmanager
def _finishing(state: Path, path: Path, known: Path | None) -> Iterator[_Found | None]:
    """Overlay and stage, open and locked; None when there is no overlay."""
    lock = StateLock(state)
    try:
        head = read_head(state)
        if head is None:
            yield None
            return
        stage = stage_of(path, known)
        if not path.exists():
            raise TargetMismatch(f"{path} is not there", remedy="name the file that was filled")
        with explained(stage.folder):
            stage.lock(str(path))
        try:
            overlay = open_overlay(state, head)
            try:
                writer = open_raw(str(path), head.size)
                try:
                    yield _Found(stage, overlay, writer)
                finally:
                    writer.close()
            finally:
                overlay.close()
        finally:
            stage.unlock()
    finally:
        lock.release()


def _copy(overlay: Overlay, writer: BlockWriter) -> int:
    written = 0
    buffer = memoryview(bytearray(_STEP))
    for low, high, there in overlay.runs(0, overlay.size):
        if not there:
            continue
        for extent in overlay.extents(low, high):
            if extent.zero:
                writer.discard(extent.offset, extent.length)
                continue
            for at in range(extent.offset, extent.offset + extent.length, _STEP):
                part = buffer[: min(_STEP, extent.offset + extent.length - at)]
                overlay.read_into(at, part)
                writer.write(at, [part])
                written += part.nbytes
    writer.flush()
    return written


def _create(layer: Path, backing: Path, size: int) -> None:
    """An empty qcow2 image over a raw file. Raises TargetError."""
    command = [tool("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(backing.absolute())]
    done = subprocess.run(
        [*command, str(layer.absolute()), str(size)],
        capture_output=True,
        text=True,
        timeout=_CREATE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.strip().removeprefix("qemu-img: ")
        raise TargetError(f"cannot make {layer}: {reason}", remedy="check its folder and the room in it")
