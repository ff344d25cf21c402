"""How one target disk is made equal to a recovery point: by what it is known to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from manifests.manifest import Disk
from pipeline.catalogue import Point, load
from pipeline.errors import CatalogueError, FormatError, UsageError
from pipeline.repository import Repository
from pipeline.transfer.index_file import IndexFile, StaleCopy
from pipeline.transfer.stage import Stage, StageState
from pipeline.writers.base import BlockWriter

Mode = Literal["full", "refresh", "hashed", "unchanged"]
"""hashed: the target is read, and only what differs is written."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """Somebody who watched the target says: every chunk of it is that of `disk` (None: zeros) or already the one that
    it shall get. So a restore that was cut short may be vouched for as before. Believed without looking."""

    disk: Disk | None
    what: str
    """For people: the point that it held."""
    again: bool = False
    """An earlier attempt may have written something."""


@dataclass(slots=True)
class Plan:
    """`old` and `copy` (open, to be closed by whoever has the plan): what a target holds that can be trusted.

    A refresh without a copy looks at the target before it writes: some chunks may be there already."""

    mode: Mode
    reason: str
    old: Disk | None = None
    copy: IndexFile | None = None
    keep_done: bool = False
    """What an earlier restore noted as written is."""
    rest_zero: bool = False
    """What the point has no chunk for reads as zeros."""


def plan_restore(
    repository: Repository,
    point: Point,
    disk: Disk,
    writer: BlockWriter,
    stage: Stage,
    vouched: Vouched | None = None,
) -> Plan:
    """Look at the target and at what is known of it; changes nothing."""
    if vouched is not None:
        return _plan_vouched(repository, disk, stage, vouched, point.manifest.label)
    state, label = stage.state, point.manifest.label
    if writer.fresh:
        return Plan("full", "the target is new")
    if state is None:
        return Plan("hashed", "nothing is known of what the target holds")
    mine = (repository.document.id, disk.size, disk.chunk_size)
    if (state.repository, state.size, state.chunk_size) != mine:
        return Plan("hashed", f"the target held {state.machine}@{state.sequence} of another shape or repository")
    if state.state == "staging":
        if state.digest == disk.digest and not state.since:
            return Plan("full", f"an earlier restore of {label} was cut short; it goes on", keep_done=True)
        return Plan("hashed", f"an earlier restore to {state.machine}@{state.sequence} was cut short")
    if state.guard != writer.guard():
        return Plan("hashed", "somebody wrote to the target since it was staged")
    return _plan_refresh(repository, point, disk, stage, state)


def _plan_vouched(repository: Repository, disk: Disk, stage: Stage, vouched: Vouched, label: str) -> Plan:
    state, old = stage.state, vouched.disk
    mine = state is not None and (state.repository, state.digest) == (repository.document.id, disk.digest)
    if old is None:
        if mine and state is not None and state.state == "staging" and not state.since:
            return Plan("full", f"an earlier restore of {label} was cut short; it goes on", keep_done=True)
        if vouched.again:
            return Plan("hashed", f"an earlier restore of {label} onto the empty target was cut short", rest_zero=True)
        return Plan("full", "the target is empty", rest_zero=True)
    if (old.size, old.chunk_size) != (disk.size, disk.chunk_size):
        return Plan("hashed", f"the target held {vouched.what}, which has another shape")
    if old.digest == disk.digest:
        return Plan("unchanged", _holds(vouched.what, label))
    if state is not None and state.state == "staged" and state.digest == old.digest:
        try:
            head, copy = IndexFile.open(stage.copy)
        except StaleCopy:
            return Plan("refresh", f"the target holds {vouched.what}", old=old)
        if (head.repository, head.digest) == (repository.document.id, old.digest):
            return Plan("refresh", f"the target holds {vouched.what}", old=old, copy=copy)
        copy.close()
    return Plan("refresh", f"the target holds {vouched.what}", old=old)


def _holds(held: str, label: str) -> str:
    return f"the target holds {held}" + ("" if held == label else f", which equals {label}")


def _plan_refresh(repository: Repository, point: Point, disk: Disk, stage: Stage, state: StageState) -> Plan:
    held = f"{state.machine}@{state.sequence}"
    try:
        head, copy = IndexFile.open(stage.copy)
    except StaleCopy:
        return Plan("hashed", "what was known of the stage is lost")
    if head.digest != state.digest:
        copy.close()
        return Plan("hashed", "what was known of the stage is of another point")
    if state.digest == disk.digest:
        return Plan("unchanged", _holds(held, point.manifest.label), copy=copy)
    try:
        earlier = load(repository, state.machine, state.sequence)
    except (CatalogueError, FormatError, UsageError, ValueError):
        earlier = None  # gone, damaged, or what is known of the stage is
    except BaseException:
        copy.close()
        raise
    disks = earlier.manifest.disks if earlier else ()
    old = next((d for d in disks if d.digest == state.digest and d.number == state.number), None)
    if old is None:
        copy.close()
        return Plan("hashed", f"{held}, which the target holds, is no longer in the repository")
    return Plan("refresh", f"the target holds {held}", old=old, copy=copy)
