"""Who writes: every session in the repository, by the sequence that it announced."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from manifests.names import PointName, decode_machine, parse_point, session_prefix
from pipeline.catalogue import forgotten, sequences
from pipeline.collect.record import known_heights
from pipeline.errors import CorruptObject, FailbackError, FormatError, UsageError
from pipeline.repository import Repository
from pipeline.transfer.session import find_attempts, read_ended, read_session

_CLOCK = "clock"


@dataclass(slots=True)
class Attempts:
    """All sessions that announced one sequence of a machine. Times in seconds by the store's clock."""

    machine: str
    sequence: int
    since: float
    """When the first of them began."""
    sign: float = 0.0
    """The newest sign of any."""
    signs: dict[str, float] = field(default_factory=dict)
    """By run: its newest sign."""
    announced: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    @property
    def label(self) -> str:
        return f"{self.machine}@{self.sequence}"

    def living(self, since: float) -> list[str]:
        """Runs that have not ended and gave a sign after `since`."""
        return [r for r in sorted(self.announced - self.ended) if self.signs[r] >= since]


def read_sessions(repository: Repository) -> list[Attempts]:
    """One listing."""
    found: dict[tuple[str, int], Attempts] = {}
    for info in repository.store.list("sessions/"):
        parts = info.key.split("/")
        if len(parts) < 4 or parts[2] == _CLOCK:
            continue
        machine, run = decode_machine(parts[1]), parts[2]
        digits = run.partition("-")[0]
        if not digits.isdigit() or len(digits) != 10:
            raise CorruptObject(
                f"{info.key} is not a key of failback", remedy="remove it, if you know who put it there"
            )
        time = info.modified.timestamp()
        attempts = found.setdefault((machine, int(digits)), Attempts(machine, int(digits), time))
        attempts.since = min(attempts.since, time)
        attempts.sign = max(attempts.sign, time)
        attempts.signs[run] = max(attempts.signs.get(run, 0.0), time)
        if parts[3] == "session":
            attempts.announced.add(run)
        elif parts[3] == "ended":
            attempts.ended.add(run)
    return [found[key] for key in sorted(found)]


def named_points(repository: Repository, attempts: Attempts, run: str) -> set[tuple[str, int]]:
    """(machine, sequence) of the points that a session builds on. Raises CorruptObject when it can't be read."""
    key = f"{session_prefix(attempts.machine, run)}session"
    try:
        document = read_session(repository, key)
        if document is None:
            return set()  # gone since it was listed
        parent = document["parent"]
        named = {(attempts.machine, int(parent["sequence"]))} if parent else set()
        for base in document["bases"]:
            machine, sequence = parse_point(str(base["point"]))
            if sequence is not None:
                named.add((machine, sequence))
    except (KeyError, TypeError, ValueError, FailbackError) as error:
        if isinstance(error, FailbackError) and not isinstance(error, CorruptObject):
            raise
        raise CorruptObject(
            f"{key} cannot be read, so what its writer builds on is not known: {error}",
            remedy=f"stop the export of {attempts.machine}, or wait: without a sign of it the session is given up",
        ) from error
    return named


def check_was_taken(repository: Repository, name: PointName) -> None:
    """Before a number is given up for lost. Raises UsageError when nothing tells that it ever was a point: it may be
    the one that an export is about to commit."""
    machine, sequence = name.machine, name.sequence or 0
    taken = [
        *sequences(repository, machine),
        *forgotten(repository, machine),
        known_heights(repository).get(machine, 0),
    ]
    attempts = find_attempts(repository, machine, sequence)
    if sequence > max(taken) and not any(attempt.ended == "committed" for attempt in attempts):
        raise UsageError(
            f"{machine}@{sequence} was never committed, as far as anybody knows",
            remedy="an export of it may be on its way: "
            f"`failback list {machine}` shows the points, `failback gc` says what is missing",
        )


def committed(repository: Repository, attempts: Attempts) -> bool:
    """Whether one of the sessions says that it committed its point. One that can't be read, or whose writer's key was
    revoked since, says nothing."""
    for run in sorted(attempts.ended):
        with suppress(FormatError):
            ended = read_ended(repository, f"{session_prefix(attempts.machine, run)}ended")
            if (ended or {}).get("outcome") == "committed":
                return True
    return False
