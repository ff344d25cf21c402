"""A run's journal in the repository: append-only, numbered without gaps, each entry created only if absent.

Two who append at once write the same key, and one of them loses: so whoever appended entry n knew all before it. That
is what makes an appended intent a proof that nobody else had taken over up to that moment.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress

from manifests.envelope import Kind
from manifests.machine import Model
from manifests.manifest import decode_record, encode_record
from manifests.names import run_entry_key, run_journal_prefix
from pipeline.collect.record import by
from pipeline.errors import AlreadyExists, CorruptObject, NotFound
from pipeline.repository import Repository
from pipeline.runs.entries import Entry, from_record, to_record
from pipeline.runs.fold import RunState, fold
from pipeline.store.base import ObjectInfo


class Moved(Exception):
    """Others appended first; they have been read. The caller decides anew."""


class Journal:
    """One run's. Not safe for several threads: the conductor has a lock around it."""

    def __init__(self, repository: Repository, run: str, *, by: str = "") -> None:
        self.run = run
        self.entries: list[Entry] = []
        self._repository = repository
        self._prefix = run_journal_prefix(run)
        self._by = by

    @property
    def newest(self) -> int:
        return len(self.entries)

    def read(self) -> list[Entry]:
        """What is new since the last look, in order. Raises CorruptObject for a gap or an entry that is damaged: a
        journal with a hole says nothing."""
        after = run_entry_key(self.run, self.newest) if self.newest else ""
        new = []
        for info in self._repository.store.list(self._prefix, after=after):
            number = self.newest + 1
            if info.key != run_entry_key(self.run, number):
                raise CorruptObject(
                    f"{run_entry_key(self.run, number)} is missing, and {info.key} is there",
                    remedy="bring it back from an older version or a copy of the bucket; nothing is done meanwhile",
                )
            entry = self._entry(info, number)
            self.entries.append(entry)
            new.append(entry)
        return new

    def last(self) -> Entry | None:
        """The newest one, without a look at those before: for a look at many journals, most of which are over. A run's
        conductor that was superseded cannot append, so one that is `finished` is the end of it."""
        number, newest = 0, None
        for number, newest in enumerate(self._repository.store.list(self._prefix), 1):  # noqa: B007 - the last counts
            pass
        if newest is None or newest.key != run_entry_key(self.run, number):
            return None  # there is none, or a gap, which `read` complains of
        return self._entry(newest, number)

    def _entry(self, info: ObjectInfo, number: int) -> Entry:
        try:
            data = self._repository.store.get(info.key)
        except NotFound as error:
            raise CorruptObject(f"{info.key} went away while it was read") from error
        record = decode_record(memoryview(data), Kind.RECORD, sealing=self._repository.sealing, key=info.key)
        return from_record(record, number=number, time=info.modified, key=info.key)

    def append(self, body: Model, *, unless: Callable[[Entry], bool] = lambda _entry: False) -> Entry:
        """Durable when it returns. Where others were faster their entries are read first; Moved is raised when one of
        them is such that the caller's word is no longer good (`unless`). A lost answer makes no second entry."""
        id_ = uuid.uuid4().hex
        record = to_record(id_, self._by or by(), body)
        while True:
            number = self.newest + 1
            key = run_entry_key(self.run, number)
            data = encode_record(Kind.RECORD, record, sealing=self._repository.sealing, key=key)
            with suppress(AlreadyExists):
                create_only(self._repository, key, data)
            new = self.read()
            mine = next((entry for entry in new if entry.id == id_), None)
            if any(
                unless(entry) for entry in new if entry is not mine and (mine is None or entry.number < mine.number)
            ):
                raise Moved
            if mine is not None:
                return mine


def create_only(repository: Repository, key: str, data: bytes) -> None:
    """Raises AlreadyExists when `key` is there. A store without conditional PUT is looked at before and after: two who
    do so in the same second may both believe that they won, so nothing unattended relies on it."""
    if repository.conditional_put:
        repository.store.put(key, data, create=True)
        return
    if repository.store.head(key) is not None:
        raise AlreadyExists(key)
    repository.store.put(key, data)
    if bytes(repository.store.get(key)) != data:
        raise AlreadyExists(key)


def state_of(journal: Journal) -> RunState:
    """What a journal says now."""
    journal.read()
    return fold(journal.run, journal.entries)
