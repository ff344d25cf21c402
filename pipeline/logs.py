"""The log: one rotating file, written by many processes at once, without secrets."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

MAX_BYTES = 10 << 20
BACKUPS = 5
DELAY = 0.5
"""Seconds before the file is opened: its library takes as long to import as a small command takes to run."""

_FORMAT = "%(asctime)s %(levelname)-7s [%(process)d] %(message)s"
_SECRET_NAME = re.compile(r"(?i)secret|token|passw|access_key|credential")
_SECRET_TEXT = (
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/@\s'\"]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)\b((?:[\w-]*(?:secret|password|passwd|signature|credential|security-token|session_token))"
            r"[\w-]*[=:]\s*)[^\s&;,'\"]+"
        ),
        r"\1***",
    ),
)


def logger() -> logging.Logger:
    return logging.getLogger("failback")


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without the secrets of this process's environment and without what looks like one."""
    for name, value in environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name) and not name.endswith(("_FILE", "_URI")) and value in text:
            text = text.replace(value, "***")
    for pattern, instead in _SECRET_TEXT:
        text = pattern.sub(instead, text)
    return text


def command_line() -> list[str]:
    """How this process was called; the log's formatter takes secrets out."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


class _Formatter(logging.Formatter):
    """One record is one line, so that lines of several processes can be told apart; a traceback goes on indented."""

    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record)).rstrip("\n").replace("\n", "\n    ")


class _Buffer(MemoryHandler):
    """Holds the first records back until the file is worth opening: a warning, DELAY seconds, or the end."""

    def __init__(self, path: Path) -> None:
        super().__init__(capacity=1000, flushLevel=logging.WARNING)
        self._path = path
        self._timer = threading.Timer(DELAY, self._settle)
        self._timer.daemon = True
        self._timer.start()
        self._settled = False

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        return self._settled or super().shouldFlush(record)

    def flush(self) -> None:
        with self.lock or threading.RLock():
            if self.buffer and self.target is None:
                self.target = _file_handler(self._path)
            super().flush()

    def _settle(self) -> None:
        self._settled = True
        self.flush()

    def close(self) -> None:
        self._timer.cancel()
        target = None
        try:
            self.flush()
            target = self.target
        finally:
            super().close()
            if target is not None:
                _close(target)


def _close(handler: logging.Handler) -> None:
    """What is still in a buffer may find no room, and be tried once more by `close` itself."""
    try:
        handler.close()
    except OSError:
        handler.handleError(logging.makeLogRecord({}))


class _Complaint:
    """Stands for `Handler.handleError`: a disk that is full or gone while we write is told once, in one line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = False

    def __call__(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            _complain(self._path, sys.exc_info()[1])


def _complain(path: Path, error: BaseException | None) -> None:
    reason = getattr(error, "strerror", None) or error
    sys.stderr.write(f"failback: the log {path} cannot be written: {reason}\n")


def _file_handler(path: Path) -> logging.Handler:
    """Never fails: a log that cannot be written is told once, and the command goes on."""
    try:
        from concurrent_log_handler import ConcurrentRotatingFileHandler

        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler: logging.Handler = ConcurrentRotatingFileHandler(
            str(path), maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", chmod=0o600
        )
        # One handler, not a class of its own: what it cannot write is told once, on standard error.
        handler.handleError = _Complaint(path)  # type: ignore[method-assign]  # of this handler alone
    except OSError as error:
        _complain(path, error)
        handler = logging.NullHandler()
    handler.setFormatter(_Formatter(_FORMAT))
    return handler


@contextmanager
def opened(path: Path | None, *, verbose: bool = False) -> Iterator[logging.Logger]:
    """The log while a command runs. `verbose` also logs requests to the store."""
    log = logger()
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    handler: logging.Handler = _Buffer(path) if path is not None else logging.NullHandler()
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        handler.close()
