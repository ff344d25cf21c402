"""The end of a served disk: what the guest wrote is kept in the stage, or dropped. Nobody serves it any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.errors import TargetMismatch
from pipeline.serve.local import KEPT, stage_of
from pipeline.serve.lock import StateLock
from pipeline.serve.overlay import Overlay, open_overlay, read_head, remove_overlay
from pipeline.transfer.stage import Stage, explained
from pipeline.writers.base import BlockWriter
from pipeline.writers.raw import open_raw

_STEP = 1 << 20


def drop(state: Path) -> bool:
    """Forget what the guest wrote; whether there was anything. The stage is not touched, it never held any of it.

    Raises TargetBusy while a server runs.
    """
    lock = StateLock(state)
    try:
        there = (state / "overlay").exists()
        remove_overlay(state)
        return there
    finally:
        lock.release()


def merge(state: Path, path: Path) -> int:
    """Write what the guest wrote into the stage at `path`, which from then on equals no point; returns bytes written.

    Killed at any moment, the same call goes on: the overlay is there until all of it is in the stage and flushed, and
    the stage says `kept` before its first byte changes. Raises TargetMismatch when the stage is not filled, TargetBusy
    while a server or a restore has either of them, TargetError.
    """
    lock = StateLock(state)
    try:
        head = read_head(state)
        if head is None:
            return 0
        stage = stage_of(path)
        with explained():
            stage.lock(str(path))
        try:
            overlay = open_overlay(state, head)
            try:
                writer = open_raw(str(path), head.size) if path.exists() else None
                if writer is None:
                    raise TargetMismatch(f"{path} is not there", remedy="name the file that was filled")
                try:
                    _keep(stage, overlay, writer)
                    written = _copy(overlay, writer)
                finally:
                    writer.close()
            finally:
                overlay.close()
            remove_overlay(state)
            return written
        finally:
            stage.unlock()
    finally:
        lock.release()


def _keep(stage: Stage, overlay: Overlay, writer: BlockWriter) -> None:
    """Say that the stage is about to equal no point, if it is the overlay's and whole."""
    state, head = stage.state, overlay.head
    mine = state is not None and (state.repository, state.digest, state.size) == (
        head.repository,
        head.digest,
        head.size,
    )
    if state is not None and mine and state.state == KEPT:
        return  # an earlier merge was cut short
    if state is None or not mine or state.state != "staged":
        raise TargetMismatch(
            f"{writer.name} is not the filled stage of {head.label}",
            remedy="let the server fill it, or `failback import` it, and try again",
        )
    if state.guard != writer.guard():
        raise TargetMismatch(
            f"somebody wrote to {writer.name} since it was staged",
            remedy="`failback import` it again: that mends it",
        )
    with explained():
        stage.save(replace(state, state=KEPT, guard=""))


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
