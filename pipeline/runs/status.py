"""What a conductor says of itself while it works: signs of life, and how far its effects are. Nothing depends on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import run_prefix
from pipeline.errors import FormatError, NotFound
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.runs.fold import RunState
from pipeline.units import size


@dataclass(frozen=True, slots=True)
class Status:
    """`at`: the store's time of the sign of life."""

    at: datetime
    process: dict[str, Any]
    said: dict[str, Any] = field(default_factory=dict)


def status_key(run: str, conductor: int) -> str:
    return f"{run_prefix(run)}conductors/{conductor:010d}"


def encode_status(repository: Repository, key: str, process: dict[str, Any], said: dict[str, Any]) -> bytes:
    record = {"format": 1, "process": process, "status": said}
    return encode_record(Kind.RECORD, record, sealing=repository.sealing, key=key)


def status_of(repository: Repository, state: RunState) -> Status | None:
    """Of the newest conductor; None when there is none, or what it says cannot be read."""
    if not state.conductor:
        return None
    key = status_key(state.run, state.conductor)
    try:
        info = repository.store.head(key)
        record = decode_record(memoryview(repository.store.get(key)), Kind.RECORD, sealing=repository.sealing, key=key)
    except (NotFound, FormatError):
        return None
    process, said = record.get("process"), record.get("status")
    if info is None or not isinstance(process, dict) or not isinstance(said, dict):
        return None
    return Status(info.modified, process, said)


def progress_of(counters: Counters) -> str:
    """How far a transfer is, in a few words."""
    if not counters.total:
        return f"{counters.disk}: {counters.phase}".strip(": ")
    moved = max(counters.sent, counters.written)
    return f"{counters.disk}: {counters.phase} {size(counters.done)} of {size(counters.total)}, moved {size(moved)}"


def status_lines(status: Status | None) -> list[str]:
    """For people, below what the journal says."""
    if status is None:
        return ["", "  nobody conducts it: `failback run conduct` goes on"]
    who = f"process {status.process.get('pid')} on {status.process.get('host')}"
    found = ["", f"  conducted by {who}, last seen {status.at:%H:%M:%S} UTC"]
    said = [pair for about in ("conditions", "progress", "told") for pair in _pairs(status.said.get(about))]
    wide = min(20, max((len(what) for what, _seen in said), default=0))
    found += [f"    {what:<{wide}}  {seen}" for what, seen in said]
    if away := status.said.get("commit-pending"):
        found.append(f"    commit-pending: the repository is away, nothing is undone meanwhile: {away}")
    return found


def _pairs(value: object) -> list[tuple[str, str]]:
    return [(str(k), str(v)) for k, v in value.items()] if isinstance(value, dict) else []
