"""Whether a run is free to be conducted by somebody else: what became of the one who conducted it last."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import ConductedElsewhere
from pipeline.repository import Repository
from pipeline.runs.fold import RunState
from pipeline.runs.status import clock_key, status_key, status_of, who
from pipeline.runs.store_clock import StoreClock
from pipeline.transfer.process import Process

SILENT = timedelta(seconds=60)
"""So long without a sign of life, by the store's clock, makes a conductor one that may be replaced."""
_OURS = (b"failback", b"pipeline.cli")
"""In the command line of every process of ours."""


def why_free(repository: Repository, state: RunState, here: Process) -> str:
    """What became of the newest conductor, for the journal. One of this host that sleeps is ended. Raises
    ConductedElsewhere while it gives signs of life."""
    before, name = state.conductor, who(state.process)
    if not before:
        return "nobody conducted it before"
    process = Process.of(state.process)
    if is_dead(state, here):
        return f"conductor {before} ({name}) is dead"
    status = status_of(repository, state)
    if status is not None and status.ended:
        return f"conductor {before} ({name}) has ended"
    store = repository.store
    info = store.head(status_key(state.run, before))
    probe = StoreClock(store, clock_key(state.run))
    silent = probe.look(b"{}") - (info.modified if info else state.newest or probe.now())
    if silent < SILENT:
        raise ConductedElsewhere(
            f"run {state.run} is conducted by {name}, last seen {silent.total_seconds():.0f} s ago",
            remedy="`failback run watch` shows it; decide with `failback run approve`, `hold`, ... from anywhere",
        )
    # A thread of this very process cannot be ended: it will find that it is superseded.
    ours = process != here and process.alive(here)
    ended = " and was ended" if ours and end_sleeper(state.process) else ""
    return f"conductor {before} ({name}) gave no sign for {silent.total_seconds():.0f} s{ended}"


def is_dead(state: RunState, here: Process) -> bool:
    """Whether the newest conductor is known to be."""
    return Process.of(state.process).alive(here) is False


def end_sleeper(process: dict[str, Any]) -> bool:
    """A conductor of this host that sleeps is killed: it holds locks here, and must not wake up into another's work.
    Whether it could be. A journal cannot have anything killed that is not ours: what others wrote there is only a hint.
    """
    pid = int(process["pid"])
    folder = Path(f"/proc/{pid}")
    try:
        if folder.stat().st_uid != os.geteuid() or not any(n in (folder / "cmdline").read_bytes() for n in _OURS):
            return False
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True
