"""A writer's session: who writes, what it has stored so far, and who may go on after it (FORMAT.md, section 11)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from manifests.entry import PackTable, Positions, Rows
from manifests.envelope import Kind, open_by_place, seal_by_place
from manifests.manifest import decode_record, encode_record
from manifests.names import journal_key, manifest_key, run_name, session_prefix, sessions_prefix
from manifests.page import Journal, decode_journal, encode_journal
from pipeline.catalogue import now
from pipeline.errors import (
    AlreadyExists,
    CorruptObject,
    FailbackError,
    NotFound,
    SessionFenced,
    SessionHeld,
    StoreError,
)
from pipeline.repository import Repository
from pipeline.store.base import ObjectInfo
from pipeline.transfer.process import Process

HEARTBEAT_SECONDS = 60.0
EXPIRY = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One session found at the machine's next sequence. Of one whose document is damaged nothing is known: `document`
    has no disks, and `damage` says what is wrong."""

    run: str
    document: dict[str, Any]
    ended: str | None
    newest: datetime
    journals: tuple[str, ...]
    damage: str = ""


class Session:
    """An open session of this process. Its heartbeat runs in a thread until `end` or `abandon`."""

    def __init__(self, repository: Repository, machine: str, run: str, document: dict[str, Any]) -> None:
        self.repository = repository
        self.machine = machine
        self.run = run
        self.document = document
        self._prefix = session_prefix(machine, run)
        self._journals = 0
        self._announced = manifest_key(machine, int(run.partition("-")[0]))
        self._fenced = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=_heart(repository, machine, run), daemon=True)
        self._thread.start()

    @classmethod
    def begin(
        cls,
        repository: Repository,
        machine: str,
        sequence: int,
        *,
        parent: dict[str, Any] | None,
        bases: list[dict[str, Any]],
        disks: list[dict[str, Any]],
        tool: str,
    ) -> tuple[Session, list[Attempt]]:
        """Announce `sequence`. Returns the session and the dead attempts whose journals can be built on, oldest first.

        Raises SessionHeld when another writer of this machine is alive.
        """
        here = Process.current()
        while True:
            attempts = find_attempts(repository, machine, sequence)
            for attempt in attempts:
                _refuse_if_alive(repository, machine, attempt, here)
            number = 1 + max((int(a.run.rpartition("-")[2]) for a in attempts), default=0)
            run = run_name(sequence, number)
            document = {
                **here.document(), "started": now(), "sequence": sequence, "attempt": number,
                "parent": parent, "bases": bases, "tool": tool, "resumes": [a.run for a in attempts], "disks": disks,
            }  # fmt: skip
            if repository.sealing.encrypted:
                document["generation"] = repository.sealing.generation
            key = f"{session_prefix(machine, run)}session"
            data = encode_record(Kind.SESSION, document, sealing=repository.sealing, key=key)
            try:
                repository.store.put(key, data, create=repository.conditional_put)
            except AlreadyExists:
                continue  # another writer was faster; the next look finds it
            session = cls(repository, machine, run, document)
            if not repository.conditional_put:
                session._check_alone(sequence, here)
            return session, attempts

    def _check_alone(self, sequence: int, here: Process) -> None:
        """Without conditional PUT two writers may have written one key: whose bytes are there decides."""
        for attempt in find_attempts(self.repository, self.machine, sequence):
            if attempt.run == self.run and attempt.document != self.document:
                self.abandon()
                _refuse_if_alive(self.repository, self.machine, attempt, here)

    def journal(self, disk: int, positions: Positions, rows: Rows, packs: PackTable, stored: Mapping[int, int]) -> int:
        """Record chunks whose packs are stored (`stored`: their lengths by number); returns the bytes written.

        Raises SessionFenced when a heartbeat found that this session can commit nothing any more."""
        if self._fenced:
            raise self._lost()
        plain = encode_journal(disk, positions, rows, packs, stored)
        key = journal_key(self.machine, self.run, self._journals)
        data = seal_by_place(Kind.JOURNAL, plain, sealing=self.repository.sealing, key=key)
        self.repository.store.put(key, data)
        self._journals += 1
        return len(data)

    def check_free(self) -> None:
        """Raises SessionFenced when the announced key is taken: nothing that is stored now could ever be committed."""
        if self.repository.store.head(self._announced) is not None:
            raise self._lost()

    def _lost(self) -> SessionFenced:
        return SessionFenced(
            f"{self._announced} was taken by another writer, or fenced by a collector, while this export ran",
            remedy="nothing was committed, and no point is lost; run the same command again",
        )

    def end(self, outcome: str) -> None:
        """The last thing a session writes. A failure to write it only delays the next writer."""
        self._stop.set()
        self._thread.join()
        key = f"{self._prefix}ended"
        record = {"outcome": outcome, "time": now()}
        data = encode_record(Kind.SESSION_END, record, sealing=self.repository.sealing, key=key)
        with contextlib.suppress(FailbackError):
            self.repository.store.put(key, data)

    def abandon(self) -> None:
        """Stop the heartbeat without writing anything. This process may then take the session over."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        key = f"{self._prefix}heartbeat"
        while not self._stop.wait(HEARTBEAT_SECONDS):
            data = encode_record(Kind.HEARTBEAT, {"time": now()}, sealing=self.repository.sealing, key=key)
            # A missed beat is no error: the next one comes, and expiry is many beats long.
            with contextlib.suppress(FailbackError):
                self.repository.store.put(key, data)
                self._fenced = self.repository.store.head(self._announced) is not None


def find_attempts(repository: Repository, machine: str, sequence: int) -> list[Attempt]:
    """Sessions that announced `sequence`, oldest first: one listing and one read each."""
    prefix = f"{sessions_prefix(machine)}{run_name(sequence, 0)[:-4]}"
    objects: dict[str, list[tuple[str, datetime]]] = {}
    for info in repository.store.list(prefix):
        run, _, rest = info.key[len(sessions_prefix(machine)) :].partition("/")
        objects.setdefault(run, []).append((rest, info.modified))
    attempts = []
    for run, found in sorted(objects.items()):
        names = [name for name, _ in found]
        if "session" not in names:
            continue
        base = session_prefix(machine, run)
        damage = ""
        try:
            document = read_session(repository, f"{base}session")
        except CorruptObject as error:
            document, damage = {"disks": []}, error.message
        if document is None:
            continue
        try:
            ended = read_ended(repository, f"{base}ended") if "ended" in names else None
        except CorruptObject:
            ended = None  # its process, or its age, tells whether it lives
        journals = tuple(f"{base}{n}" for n in sorted(names) if n.startswith("journal/"))
        outcome = str(ended["outcome"]) if ended else None
        attempts.append(Attempt(run, document, outcome, max(t for _, t in found), journals, damage))
    return attempts


def read_journal(repository: Repository, key: str, packs: PackTable) -> Journal:
    """One journal. Raises CorruptObject."""
    data = repository.store.get(key)
    _kind, plain = open_by_place(memoryview(data), Kind.JOURNAL, sealing=repository.sealing, key=key)
    return decode_journal(plain, packs, name=key)


def read_session(repository: Repository, key: str) -> dict[str, Any] | None:
    """The document of a session, or None when it is gone. Raises CorruptObject."""
    return _read(repository, key, Kind.SESSION)


def read_ended(repository: Repository, key: str) -> dict[str, Any] | None:
    """How a session ended, or None when it does not say. Raises CorruptObject."""
    return _read(repository, key, Kind.SESSION_END)


def _read(repository: Repository, key: str, kind: Kind) -> dict[str, Any] | None:
    try:
        data = repository.store.get(key)
    except NotFound:
        return None
    return decode_record(memoryview(data), kind, sealing=repository.sealing, key=key)


def _refuse_if_alive(repository: Repository, machine: str, attempt: Attempt, here: Process) -> None:
    if attempt.ended is not None:
        return
    if attempt.damage:
        age = _store_time(repository, machine) - attempt.newest
        if age > EXPIRY:
            return
        raise SessionHeld(
            f"{machine} may be in use by another writer, and who it is cannot be read: {attempt.damage}",
            remedy=f"when no other export of {machine} runs, wait: it is given up {EXPIRY} after its last sign, "
            f"which was {age} ago",
        )
    writer = Process.of(attempt.document)
    if writer == here:
        # Of this very process: open as long as its heart beats, else left behind when the store went away.
        alive: bool | None = _heart(repository, machine, attempt.run) in {t.name for t in threading.enumerate()}
    else:
        alive = writer.alive(here)
    if alive is False or (alive is None and _store_time(repository, machine) - attempt.newest > EXPIRY):
        return
    raise SessionHeld(
        f"{machine} is being exported by process {writer.pid} on {writer.host} since {attempt.document['started']}",
        remedy="wait for it or stop it there"
        + (
            ""
            if writer.host == here.host
            else f"; a dead writer on another host is given up {EXPIRY} after its last sign"
        ),
    )


def _heart(repository: Repository, machine: str, run: str) -> str:
    """Name of the thread that lives as long as a session of this process is open."""
    return f"heartbeat of {repository.document.id} {session_prefix(machine, run)}"


def _store_time(repository: Repository, machine: str) -> datetime:
    return touch(repository, f"{sessions_prefix(machine)}clock/heartbeat").modified


def touch(repository: Repository, key: str, kind: Kind = Kind.HEARTBEAT) -> ObjectInfo:
    """What the store says of a record of `kind` that it is given at `key` now: the time, by the store's clock. Only
    that clock tells how old its objects are."""
    repository.store.put(key, encode_record(kind, {"time": now()}, sealing=repository.sealing, key=key))
    info = repository.store.head(key)
    if info is None:
        raise StoreError(
            f"{key} was stored in {repository.store.name} and is absent a moment later",
            remedy="failback needs a store with read-after-write consistency, and no one who deletes behind it",
        )
    return info


class Stopwatch:
    """Says when a journal is due: every so many bytes or seconds."""

    def __init__(self, every_bytes: int, every_seconds: float) -> None:
        self._bytes, self._seconds = every_bytes, every_seconds
        self._since, self._sent = time.monotonic(), 0

    def due(self, sent: int) -> bool:
        self._sent += sent
        return self._sent >= self._bytes or time.monotonic() - self._since >= self._seconds

    def reset(self) -> None:
        self._since, self._sent = time.monotonic(), 0
