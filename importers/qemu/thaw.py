"""`python -m importers.qemu.thaw FOLDER SOCKET`: a guest that was frozen for a moment does not stay so when we die.

It reads its standard input to the end: `done` means that the guest was thawed. Anything else, which is what the end of
its parent leaves, means that nobody did; then it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from importers.qemu import agent

DONE = b"done"
_SECONDS = 60.0
_STEP = 0.5


@contextmanager
def guarded(folder: Path, name: str) -> Iterator[None]:
    """What is frozen inside is thawed, by us at its end, or by a process that outlives us."""
    ours, its = os.pipe2(os.O_CLOEXEC)[::-1]
    try:
        # It is nobody's child when this returns, so that nobody need wait for it.
        subprocess.run(
            ["setsid", "--fork", sys.executable, "-m", __spec__.name, str(folder), name],
            stdin=its,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        os.close(its)
        its = -1
        try:
            yield
        finally:
            if thaw(folder, name):
                os.write(ours, DONE)
    finally:
        os.close(ours)
        if its >= 0:
            os.close(its)


def thaw(folder: Path, name: str, *, seconds: float = 30.0) -> bool:
    """Whether the guest's agent says that nothing is frozen. A guest without an agent was never frozen by it."""
    try:
        agent.ask(folder, "guest-fsfreeze-thaw", seconds=seconds, name=name)
        return str(agent.ask(folder, "guest-fsfreeze-status", name=name)) == "thawed"
    except (OSError, agent.AgentError):
        return False


def main(folder: Path, name: str) -> None:
    if sys.stdin.buffer.read() == DONE:
        return
    end = time.monotonic() + _SECONDS
    while not thaw(folder, name) and time.monotonic() < end:
        time.sleep(_STEP)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
