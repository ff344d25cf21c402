"""Listening: on a UNIX socket, and on the loopback interface when asked."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import TargetBusy, TargetError, UsageError
from pipeline.logs import logger
from pipeline.nbd import protocol as p
from pipeline.serve.budget import Budget
from pipeline.serve.disk import ServedDisk
from pipeline.serve.handshake import Export
from pipeline.serve.overlay import BLOCK
from pipeline.serve.session import MAX_REQUEST, Session

MAX_CLIENTS = 64
_WORKERS = 16
"""Requests that may wait for the store at once: as many as QEMU sends on one connection."""
_REQUEST_BYTES = 64 << 20
_DRAIN_SECONDS = 5.0
_MAX_PATH = 106
"""sun_path of unix(7) has 108 bytes; one is the end, one our own suffix."""
FLAGS = (
    p.Flag.HAS_FLAGS
    | p.Flag.SEND_FLUSH
    | p.Flag.SEND_FUA
    | p.Flag.SEND_TRIM
    | p.Flag.SEND_WRITE_ZEROES
    | p.Flag.SEND_DF
    | p.Flag.CAN_MULTI_CONN
)


class NbdServer:
    """Serves one disk to any number of clients. `start`, then `stop`; `ended` is set when it has nothing to do."""

    def __init__(self, disk: ServedDisk, *, name: str, description: str, until_disconnected: bool = False) -> None:
        self._disk = disk
        self._export = Export(name, description, disk.size, FLAGS, BLOCK, MAX_REQUEST)
        self._until_disconnected = until_disconnected
        self._pool = ThreadPoolExecutor(_WORKERS, "request")
        self._budget = Budget(_REQUEST_BYTES)
        self._lock = threading.Lock()
        self._sessions: dict[Session, threading.Thread] = {}
        self._listeners: list[socket.socket] = []
        self._path: Path | None = None
        self.ended = threading.Event()
        """With `until_disconnected`: the last client has left. Else never, until `stop`."""

    def listen(self, path: Path) -> None:
        """On a UNIX socket that only we may use. One that a killed server left is replaced; clients that try again
        find either. Raises TargetBusy when a server answers there, UsageError, TargetError."""
        if len(os.fsencode(path)) > _MAX_PATH:
            raise UsageError(f"{path} is too long for a socket", remedy=f"use a path of at most {_MAX_PATH} bytes")
        _check_free(path)
        temporary = path.with_name(path.name + "~")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            temporary.unlink(missing_ok=True)
            listener.bind(os.fspath(temporary))
            temporary.chmod(0o600)
            listener.listen(MAX_CLIENTS)
            temporary.replace(path)
        except OSError as error:
            listener.close()
            raise TargetError(f"cannot listen on {path}: {error.strerror}", remedy="check its folder") from error
        self._path = path
        self._start(listener)

    def listen_tcp(self, port: int) -> int:
        """On the loopback interface; 0 takes any free port. Returns the port. Raises TargetError."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(MAX_CLIENTS)
        except OSError as error:
            listener.close()
            raise TargetError(f"cannot listen on port {port}: {error.strerror}", remedy="name another port") from error
        self._start(listener)
        found: int = listener.getsockname()[1]
        return found

    def _start(self, listener: socket.socket) -> None:
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener,), name="accept", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _address = listener.accept()
            except OSError:
                if listener.fileno() < 0 or self.ended.is_set():
                    return
                self.ended.wait(0.1)  # no descriptors left: some client will leave
                continue
            if link.family == socket.AF_INET:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(link, self._disk, self._export, self._pool, self._budget)
            thread = threading.Thread(target=self._run, args=(session,), name="client", daemon=True)
            with self._lock:
                welcome = len(self._sessions) < MAX_CLIENTS and not self.ended.is_set()
                if welcome:
                    self._sessions[session] = thread
            if not welcome:
                logger().warning("NBD client refused: there are %d already", MAX_CLIENTS)
                link.close()
                continue
            thread.start()

    def _run(self, session: Session) -> None:
        try:
            session.run()
        finally:
            with self._lock:
                del self._sessions[session]
                last = session.transmitted and not any(s.transmitted for s in self._sessions)
            if last and self._until_disconnected:
                self.ended.set()

    def stop(self) -> None:
        """No client comes in any more; requests that were read are answered, unless that takes too long.

        What they wrote is with the disk, whose `flush` is the caller's.
        """
        self.ended.set()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
            listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        with self._lock:
            sessions = dict(self._sessions)
        for session in sessions:
            session.end()
        deadline = time.monotonic() + _DRAIN_SECONDS
        for thread in sessions.values():
            if thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """After `stop`: returns when no request touches the disk any more."""
        self._pool.shutdown()


def _check_free(path: Path) -> None:
    """Raises TargetBusy when somebody listens there, UsageError when it is no socket."""
    try:
        kind = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(kind):
        raise UsageError(f"{path} exists and is no socket", remedy="name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return
    raise TargetBusy(f"another server answers at {path}", remedy="stop it, or name another socket")
