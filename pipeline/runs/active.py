"""Which of several processes wakes the runs of a repository: one, by a row in their database; others stand by.

It spares work and no more. Two that both believe to be the one, because their database went away or was another one,
find each other at every run: there the journal decides who conducts (`pipeline.runs.conductor`).
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from pipeline.transfer.process import Process

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""So long without a sign of life makes the active one that may be replaced; a dead process of this host is at once."""

_TABLE = sa.Table(
    "failback_active",
    sa.MetaData(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("turn", sa.BigInteger, nullable=False),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("seen", sa.Float, nullable=False),
)


class Active:
    """The row `name`. `held` may be asked by any thread, cheaply; everything else by one."""

    def __init__(self, engine: sa.Engine, name: str, *, here: Process | None = None) -> None:
        self._engine = engine
        self._name = name
        self._here = here or Process.current()
        self._said = json.dumps(self._here.document(), sort_keys=True)
        self._turn = 0
        self._held = threading.Event()
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None
        self.other = ""
        """Who is it instead, for people."""

    @property
    def held(self) -> bool:
        return self._held.is_set()

    def take(self) -> bool:
        """Whether this process is the one now. Raises SQLAlchemyError when the database does not answer."""
        with self._engine.begin() as connection:
            _TABLE.metadata.create_all(connection)
        with suppress(IntegrityError), self._engine.begin() as connection:
            now = self._now(connection)
            row = connection.execute(sa.select(_TABLE).where(_TABLE.c.name == self._name)).first()
            if row is None:
                self._turn = 1
                connection.execute(_TABLE.insert().values(name=self._name, turn=1, process=self._said, seen=now))
            else:
                if not self._free(row, now):
                    return False
                self._turn = int(row.turn) + 1
                ours = (_TABLE.c.name == self._name) & (_TABLE.c.turn == row.turn)
                change = _TABLE.update().where(ours).values(turn=self._turn, process=self._said, seen=now)
                if connection.execute(change).rowcount != 1:
                    return False
            self._held.set()
        if self.held and self._beat is None:
            self._beat = threading.Thread(target=self._beats, name="active", daemon=True)
            self._beat.start()
        return self.held

    def release(self) -> None:
        """Others need not wait."""
        self._ended.set()
        if self._beat is not None:
            self._beat.join()
        if self.held:
            self._held.clear()
            with suppress(SQLAlchemyError), self._engine.begin() as connection:
                connection.execute(_TABLE.delete().where(self._ours()))

    def _free(self, row: sa.Row[tuple[str, int, str, float]], now: float) -> bool:
        """Whether the one that the row names may be replaced."""
        process = Process.of(json.loads(row.process))
        self.other = f"process {process.pid} on {process.host}"
        alive = process.alive(self._here)
        return alive is False or not 0 <= now - row.seen < SILENT_SECONDS

    def _beats(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                with self._engine.begin() as connection:
                    still = connection.execute(_TABLE.update().where(self._ours()).values(seen=self._now(connection)))
                    lost = still.rowcount != 1
            except SQLAlchemyError:
                lost = True
            if lost:
                self._held.clear()
                return

    def _ours(self) -> sa.ColumnElement[bool]:
        return (_TABLE.c.name == self._name) & (_TABLE.c.turn == self._turn) & (_TABLE.c.process == self._said)

    def _now(self, connection: sa.Connection) -> float:
        """Seconds by one clock for all who share the database: the server's, or this host's since its boot."""
        if connection.dialect.name == "sqlite":
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())
