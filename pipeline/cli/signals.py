"""Ctrl-C and termination signals end a command cleanly; a second one, or a store that hangs, ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 10.0
"""How long what is on its way may take to arrive. Being killed loses nothing: the same command goes on."""


class Signalled(KeyboardInterrupt):
    """Raised in the main thread, wherever it is. A KeyboardInterrupt, so that whatever cleans up for one does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def number_of(interrupt: KeyboardInterrupt) -> int:
    return interrupt.number if isinstance(interrupt, Signalled) else signal.SIGINT


def signal_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The signal that became this error. One that comes while a class is made does: before Python 3.12 whatever
    `__set_name__` raises is turned into a RuntimeError."""
    behind = error.__cause__
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__cause__
    return behind


@contextmanager
def ending_signals(give_up: Callable[[int], None], grace: Callable[[], float]) -> Iterator[None]:
    """While inside, the first such signal raises Signalled and the second ends the process.

    `give_up` is called from another thread, with the signal's number, when the first has not led out of here within
    `grace()` seconds: threads may be waiting for a store that does not answer. The process ends then, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []

    def end(number: int) -> None:
        try:
            give_up(number)
        finally:
            os._exit(128 + number)

    def handle(number: int, _frame: FrameType | None) -> None:
        if timers:
            os.write(2, b"failback: ended without cleaning up\n")
            os._exit(128 + number)
        timers.append(threading.Timer(grace(), end, [number]))
        timers[0].daemon = True
        timers[0].start()
        if os.isatty(2):
            os.write(2, b"\nstopping when what is on its way has arrived; once more stops at once\n")
        raise Signalled(number)

    # An ignored hang-up stays ignored: that is what nohup asks for.
    taken = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        with _woken():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer in timers:
            timer.cancel()


@contextmanager
def _woken() -> Iterator[None]:
    """While inside, the main thread sees every signal, though it waits for a lock.

    The kernel gives a signal to any thread. Of two that come together another thread may take both; Python's handlers
    run in the main thread alone, and nothing would wake it. So a thread listens (signal.set_wakeup_fd) and sends the
    main one a signal of its own, which does nothing but interrupt its wait.
    """
    main = threading.main_thread().ident
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while data := os.read(reading, 64):
            if main is not None and any(number != _WAKE for number in data):
                signal.pthread_kill(main, _WAKE)
        os.close(reading)

    old = signal.signal(_WAKE, lambda _number, _frame: None)
    old_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_fd)
        os.close(writing)
        thread.join()
        signal.signal(_WAKE, old)


_WAKE = signal.SIGURG
"""Ignored by default, and used by nothing here."""
