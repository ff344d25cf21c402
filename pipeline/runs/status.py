"""What a conductor says of itself while it works: signs of life, and how far its effects are. Nothing depends on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import run_prefix
from pipeline.errors import CorruptObject, FormatError, NotFound
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.runs.fold import RunState, waits_for_person
from pipeline.transfer.process import Process
from pipeline.units import size


@dataclass(frozen=True, slots=True)
class Status:
    """`at`: the store's time of the sign of life."""

    at: datetime
    process: dict[str, Any]
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """It conducts no more, and said so: another one need not wait."""
        return bool(self.said.get("ended"))


def status_key(run: str, conductor: int) -> str:
    return f"{run_prefix(run)}conductors/{conductor:010d}"


def clock_key(run: str) -> str:
    """Of an object that is written to learn the store's time, and to say what conditions nobody conducts yet."""
    return f"{run_prefix(run)}conductors/clock"


def encode_status(repository: Repository, key: str, process: dict[str, Any], said: dict[str, Any]) -> bytes:
    record = {"format": 1, "process": process, "status": said}
    return encode_record(Kind.RECORD, record, sealing=repository.sealing, key=key)


def status_of(repository: Repository, state: RunState) -> Status | None:
    """Of the newest conductor; None when there is none, or what it says cannot be read."""
    if not state.conductor:
        return None
    return _read(repository, status_key(state.run, state.conductor))


def check_whole(repository: Repository, state: RunState) -> None:
    """Raises CorruptObject for a journal that ends before what one of its conductors had read: its end went away, or
    this is a copy that lags behind. Called before anything is appended, which would hide it."""
    for number in (state.conductor, state.conductor + 1):  # the entry that named the last one may be gone, too
        status = _read(repository, status_key(state.run, number)) if number else None
        known = status.said.get("entries") if status is not None else None
        if isinstance(known, int) and known > state.number:
            raise CorruptObject(
                f"the journal of {state.run} ends with entry {state.number}, and conductor {number} had read {known}",
                remedy="bring the others back from older versions or a copy of the bucket; nothing is done meanwhile",
            )


def looked_at(repository: Repository, run: str) -> Status | None:
    """What was seen by one who looked at the conditions and did not conduct."""
    return _read(repository, clock_key(run))


def _read(repository: Repository, key: str) -> Status | None:
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
        return f"{counters.phase} {counters.disk}".strip()
    moved = max(counters.sent, counters.written)
    return f"{counters.disk}: {counters.phase} {size(counters.done)} of {size(counters.total)}, moved {size(moved)}"


def who(process: dict[str, Any]) -> str:
    """A conductor, for people."""
    return f"process {process.get('pid')} on {process.get('host')}"


def status_lines(state: RunState, status: Status | None, looked: Status | None = None) -> list[str]:
    """For people, below what the journal says. `looked`: see `looked_at`. What goes on by a person's word is not said
    to go on without one."""
    on = "" if waits_for_person(state) else f": `failback run conduct {state.run}` goes on"
    if looked is not None and (status is None or (status.ended and looked.at > status.at)):
        name = who(looked.process)
        found = ["", f"  looked after by {name}, at {looked.at:%H:%M:%S} UTC"]
        return [*found, *_conditions(looked)]
    if status is None:
        return ["", f"  nobody conducts it{on}"]
    if status.ended:
        found = ["", f"  nobody conducts it since {status.at:%H:%M:%S} UTC{on}"]
        return [*found, *_conditions(status)]
    name = who(status.process)
    if Process.of(status.process).alive(Process.current()) is False:
        return ["", f"  {name}, which conducted it, is dead{on}"]
    found = ["", f"  conducted by {name}, last seen {status.at:%H:%M:%S} UTC"]
    found += _conditions(status)
    said = [pair for about in ("progress", "told") for pair in _pairs(status.said.get(about))]
    wide = min(20, max((len(what) for what, _seen in said), default=0))
    found += [f"    {what:<{wide}}  {seen}" for what, seen in said]
    if away := status.said.get("commit-pending"):
        found.append(f"    commit-pending: the repository is away, nothing is undone meanwhile: {away}")
    return found


def _conditions(status: Status) -> list[str]:
    """What is waited for comes first."""
    seen = sorted(_pairs(status.said.get("conditions")), key=lambda pair: pair[1].startswith("holds"))
    return [f"    {what:<20} {said}" for what, said in seen]


def _pairs(value: object) -> list[tuple[str, str]]:
    return [(str(k), str(v)) for k, v in value.items()] if isinstance(value, dict) else []
