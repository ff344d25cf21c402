"""Where a scrub is: in the state folder while it runs, in the bucket when a run has ended, so that any host goes on."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import scrub_run_key, scrub_runs_prefix
from pipeline.catalogue import now
from pipeline.errors import AccessDenied, AlreadyExists, FailbackError, FormatError, KeyRefused
from pipeline.mend.damage import by_whom
from pipeline.repository import Repository

START = "0" * 64
_KEPT_RUNS = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one run. `first` and `at` are ids in hexadecimal: what lies between was checked. `run`: the newest run in the
    bucket when this one began."""

    kind: str
    run: int
    first: str
    at: str
    objects: int = 0
    bytes: int = 0
    damaged: int = 0


class Notebook:
    """Keeps the progress of one kind of scrub of one repository. `repository` None: without keys, on this host only."""

    def __init__(self, state: Path, repository_id: str, kind: str, repository: Repository | None) -> None:
        self._file = state / repository_id / f"scrub-{kind}.json"
        self._kind = kind
        self._repository = repository

    def begin(self) -> Progress:
        """Where the next run begins: where this host was cut off, or where the newest run of any host ended."""
        mine = self._local()
        run, at = self._newest()
        if mine is not None and mine.run == run:
            at = mine.at
        return Progress(self._kind, run, at, at)

    def save(self, progress: Progress) -> None:
        """Atomically. Raises FailbackError when the state folder can't be used."""
        part = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.write_text(json.dumps(asdict(progress)))
            part.replace(self._file)
        except OSError as error:
            raise FailbackError(
                f"the state folder {self._file.parent} can't be used: {error.strerror or error}",
                remedy="make room there, or name another folder with FAILBACK_STATE_DIR",
            ) from error

    def finish(self, progress: Progress) -> None:
        """Write what the run did into the bucket; without the right to do so this host alone remembers."""
        self.save(progress)
        repository = self._repository
        if repository is None:
            return
        record = {
            "from": progress.first, "to": progress.at, "objects": progress.objects, "bytes": progress.bytes,
            "damaged": progress.damaged, "time": now(), "by": by_whom(),
        }  # fmt: skip
        run = progress.run + 1
        while True:
            key = scrub_run_key(self._kind, run)
            try:
                data = encode_record(Kind.SCRUB, record, sealing=repository.sealing, key=key)
                repository.store.put(key, data, create=repository.conditional_put)
                break
            except AlreadyExists:
                run += 1  # another host scrubbed at the same time
            except (AccessDenied, KeyRefused):
                return
        self.save(replace(progress, run=run))
        with contextlib.suppress(AccessDenied):
            old = [info.key for info in repository.store.list(scrub_runs_prefix(self._kind))][:-_KEPT_RUNS]
            repository.store.delete_many(old)

    def _local(self) -> Progress | None:
        try:
            found = Progress(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return found if _is_id(found.at) and found.kind == self._kind else None

    def _newest(self) -> tuple[int, str]:
        """(sequence, where it ended) of the newest run in the bucket that can be read; 0 when there is none."""
        repository = self._repository
        if repository is None:
            return 0, START
        keys = [info.key for info in repository.store.list(scrub_runs_prefix(self._kind))]
        for key in reversed(keys):
            with contextlib.suppress(FormatError, KeyError, ValueError):
                data = repository.store.get(key)
                record: dict[str, Any] = decode_record(
                    memoryview(data), Kind.SCRUB, sealing=repository.sealing, key=key
                )
                if _is_id(record["to"]):
                    return int(key.rsplit("/", 1)[1]), record["to"]
        return 0, START


def _is_id(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")
