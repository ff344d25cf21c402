"""The queue of runs to be woken, and the limit of how many at once: DBOS, on SQLite or PostgreSQL.

What is in its database is worth nothing once the process that put it there is gone: every run and all that became of it
are in the repository. So each process has an executor id of its own (two with one would run one step twice, side by
side), the application's version is fixed (what another version left would stay for ever), leftovers of others are
deleted instead of recovered, and neither its sleeps nor its schedules are used: they go by the local clock. It is
imported by `failback run serve` alone: that takes as long as a small command runs.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig
from dbos._error import DBOSException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline.errors import UsageError

VERSION = "1"
"""Of what is in the queue: a run's name."""
POLL_SECONDS = 1.0
TIDY_SECONDS = 600.0
ABANDONED = ["PENDING", "ENQUEUED", "DELAYED"]
OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class DatabaseLost(Exception):
    """It does not answer, or is another one than it was."""


class Database:
    """Where it is. Raises UsageError for an address that is none."""

    def __init__(self, url: str) -> None:
        try:
            self.url = make_url(url)
        except ArgumentError as error:
            raise UsageError(
                "the address of the database is not understood", remedy="postgresql://USER@HOST/NAME"
            ) from error
        if self.url.get_backend_name() not in ("sqlite", "postgresql"):
            raise UsageError(
                f"{self.url.get_backend_name()} is no database that runs are woken by",
                remedy="leave --database away (SQLite in the state folder), or give postgresql://USER@HOST/NAME",
            )
        if self.url.get_backend_name() == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")

    @property
    def file(self) -> Path | None:
        return Path(self.url.database) if self.url.get_backend_name() == "sqlite" and self.url.database else None

    def engine(self) -> sa.Engine:
        """Of connections that are made anew each time: none of them outlives a database that was deleted."""
        arguments: dict[str, Any] = {"timeout": 10} if self.file else {"connect_timeout": 10}
        return sa.create_engine(self.url, poolclass=sa.pool.NullPool, connect_args=arguments)

    def identity(self) -> tuple[int, int] | None:
        """Of its file: one that was deleted and made anew is another one."""
        if self.file is None:
            return None
        try:
            found = self.file.stat()
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def shown(self) -> str:
        return str(self.file) if self.file else self.url.render_as_string(hide_password=True)


class WorkQueue:
    """One of a process at a time. `work` is called with a run's name, in a thread, and raises nothing."""

    def __init__(
        self, database: Database, name: str, *, limit: int, work: Callable[[str], None], tell: Callable[[str], None]
    ) -> None:
        self._database = database
        self._name = name
        self._tidied = time.monotonic()
        _to_log(tell)
        config: DBOSConfig = {
            "name": f"failback-{name}",
            "system_database_url": database.url.set(
                drivername="sqlite" if database.file else "postgresql"
            ).render_as_string(hide_password=False),
            "dbos_system_schema": "failback",
            "executor_id": uuid.uuid4().hex,
            "application_version": VERSION,
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        try:
            DBOS(config=config)
            self._reconcile = DBOS.workflow(name="reconcile")(lambda run: work(run))
            DBOS.listen_queues([name])
            DBOS.launch()
            DBOS.register_queue(name, worker_concurrency=limit, polling_interval_sec=POLL_SECONDS)
            self._delete(ABANDONED)
        except (SQLAlchemyError, DBOSException, OSError) as error:
            self.close()
            raise DatabaseLost(f"{database.shown()}: {error}") from error
        self._identity = database.identity()

    def put(self, run: str) -> None:
        """Raises DatabaseLost."""
        if self._database.identity() != self._identity:
            raise DatabaseLost(f"{self._database.shown()} was deleted or replaced")
        try:
            DBOS.enqueue_workflow(self._name, self._reconcile, run)
            if time.monotonic() - self._tidied > TIDY_SECONDS:
                self._tidied = time.monotonic()
                self._delete(OVER)
        except (SQLAlchemyError, DBOSException) as error:
            raise DatabaseLost(f"{self._database.shown()}: {error}") from error

    def close(self) -> None:
        """What is under way goes on to its end, which nobody notes."""
        with suppress(SQLAlchemyError, DBOSException):
            DBOS.destroy(destroy_registry=True)

    def _delete(self, states: list[str]) -> None:
        found = DBOS.list_workflows(queue_name=self._name, status=states, load_input=False, load_output=False)
        if found:
            DBOS.delete_workflows([workflow.workflow_id for workflow in found])


class _Told(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(f"queue: {record.getMessage()}")


def _to_log(tell: Callable[[str], None]) -> None:
    """What DBOS has to say goes where all else goes, and not to the terminal: it writes there when nobody listens."""
    log = logging.getLogger("dbos")
    log.handlers[:] = [_Told(tell)]
    log.propagate = False
