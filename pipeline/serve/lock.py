"""One process at a time in a state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pipeline.errors import TargetBusy, TargetError


class StateLock:
    """Held until `release` or the end of this process, however that comes."""

    def __init__(self, state: Path) -> None:
        """Makes the folder when it is not there. Raises TargetBusy, TargetError."""
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TargetError(
                f"cannot use {state}: {error.strerror}", remedy="check that the folder can be written"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            # Without a lock two servers would mix their guests' writes: where there are no locks, it is refused too.
            raise TargetBusy(
                f"{state} is used by another server"
                if isinstance(error, BlockingIOError)
                else f"{state} cannot be locked: {error.strerror}",
                remedy="stop that server, or name another folder (on a local file system) with --state",
            ) from None

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
