"""A line from whoever sits at this command's terminal, waited for only as long as one may."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable

_TURN = threading.Lock()
"""There is one terminal: who asks has it until he is answered or gives up."""
_POLL = 0.25


def there_is_one() -> bool:
    """Both to read from and to be seen."""
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except ValueError:  # closed
        return False


def ask_line(question: Callable[[], str], *, seconds: float, ended: Callable[[], bool]) -> str | None:
    """What was typed after `question`, which is asked for when it is its turn. None when nobody answered in time,
    `ended` says so, or another asks now."""
    until = time.monotonic() + seconds
    if not _TURN.acquire(timeout=max(0.0, min(seconds, 1.0))):
        return None
    try:
        sys.stderr.write(question())
        sys.stderr.flush()
        typed = b""
        while time.monotonic() < until and not ended():
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], _POLL)
            if not ready:
                continue
            piece = os.read(sys.stdin.fileno(), 4096)
            typed += piece
            if not piece or b"\n" in typed:
                return typed.decode(errors="replace").strip()
        sys.stderr.write("\n")
        return None
    finally:
        _TURN.release()
