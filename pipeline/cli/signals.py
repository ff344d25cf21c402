"""Ctrl-C and termination signals end a command cleanly; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signalled(KeyboardInterrupt):
    """Raised in the main thread, wherever it is. A KeyboardInterrupt, so that whatever cleans up for one does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_signals() -> Iterator[None]:
    """While inside, the first such signal raises Signalled and the second ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if seen:
            os.write(2, b"failback: ended without cleaning up\n")
            os._exit(128 + number)
        seen.append(number)
        if os.isatty(2):
            os.write(2, b"\nstopping when what is on its way has arrived; once more stops at once\n")
        raise Signalled(number)

    # An ignored hang-up stays ignored: that is what nohup asks for.
    taken = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
