"""One at a time: a job whose last call still works is passed over. And what the last one came to."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError


@contextmanager
def alone(folder: Path, name: str) -> Iterator[str]:
    """Empty when nobody else is inside on this host, and nobody gets in meanwhile; else who is."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{folder} cannot be used: {error.strerror}", remedy="check the state folder") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield os.pread(fd, 100, 0).decode("utf-8", "replace") or "an unknown process"
            return
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()}".encode(), 0)
        yield ""
    finally:
        os.close(fd)


def keep_last(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Losing it loses a line in a list."""
    with suppress(OSError):
        temporary = folder / f"{name}.json.new"
        temporary.write_text(json.dumps(values, default=str))
        temporary.replace(folder / f"{name}.json")


def last(folder: Path, name: str) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder / f"{name}.json").read_bytes())
        if isinstance(found, dict):
            return found
    return {}
