"""The process that looks after all runs of a repository, for as long as it lives: one of several, others stand by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import FailbackError
from pipeline.runs.active import Active
from pipeline.runs.wake import POLL_SECONDS, Wakes
from pipeline.runs.workqueue import Database, DatabaseLost, WorkQueue

STANDBY_SECONDS = 2.0
LOST_SECONDS = 10.0
"""Before a database that does not answer is tried again."""
END_SECONDS = 25.0
"""As long what is under way may take to be cut short."""


@dataclass(frozen=True, slots=True)
class Server:
    """`name` is the repository's, in the database; `limit` runs are worked on at once."""

    wakes: Wakes
    database: Database
    name: str
    limit: int
    tell: Callable[[str], None]
    log: Callable[[str], None]

    def serve(self) -> None:
        """Until it is interrupted: whatever is raised in here ends it, in order. What is conducted is cut short then,
        as a kill would do, and said to be ended."""
        try:
            while True:
                try:
                    self._as_one_of_many()
                except (SQLAlchemyError, DatabaseLost) as error:
                    # It holds nothing: what is conducted goes on meanwhile, and all runs are found in the repository.
                    self.log(f"{type(error).__name__}: {error}")
                    self.tell("the database is lost: it is made anew, or waited for; no run is")
                    time.sleep(LOST_SECONDS if self.database.file is None else STANDBY_SECONDS)
        finally:
            self.wakes.stop()
            end = time.monotonic() + END_SECONDS
            while self.wakes.working and time.monotonic() < end:
                time.sleep(0.1)

    def _as_one_of_many(self) -> None:
        """Stand by, then be the active one until that is lost, or the database is."""
        if self.database.file is not None:
            self.database.file.parent.mkdir(parents=True, exist_ok=True)
        active = Active(self.database.engine(), self.name)
        try:
            told = ""
            while not active.take():
                if active.other != told:
                    told = active.other
                    self.tell(f"standing by: {told} looks after the runs")
                time.sleep(STANDBY_SECONDS)
            self.tell(f"looks after all runs, at most {self.limit} at once; queue in {self.database.shown()}")
            self._active(active)
            self.tell("another one looks after the runs now: what is conducted here goes on until it is refused")
        finally:
            active.release()

    def _active(self, active: Active) -> None:
        queue = WorkQueue(self.database, self.name, limit=self.limit, work=self.wakes.work, tell=self.log)
        try:
            told = ""
            while active.held:
                try:
                    due = self.wakes.due()
                    told = ""
                except FailbackError as error:
                    if error.message != told:
                        told = error.message
                        self.tell(f"the repository is not to be read: {told}")
                    due = []
                self._put(queue, due)
                time.sleep(POLL_SECONDS)
        finally:
            queue.close()

    def _put(self, queue: WorkQueue, due: list[str]) -> None:
        for number, run in enumerate(due):
            try:
                queue.put(run)
            except BaseException:
                for left in due[number:]:
                    self.wakes.forget(left)
                raise
