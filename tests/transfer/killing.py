"""Children that are killed with SIGKILL at a chosen moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest


def in_child(action: Callable[[], object], *, kill_after: float | None = None) -> bool:
    """Run `action` in a child process; whether it was killed. Any other failure of the child fails the test."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
    return False


def kill_at(patch: pytest.MonkeyPatch, targets: list[tuple[Any, str]], nth: int) -> None:
    """From now on this process is killed before the `nth` call (from 1) of any of the functions; after it at -nth."""
    count = 0
    lock = threading.Lock()

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **more: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                mine = count
            if mine == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **more)
            if mine == -nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    for owner, name in targets:
        patch.setattr(owner, name, wrap(getattr(owner, name)))
