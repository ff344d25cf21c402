"""Whether a file is the one that failback made, or one that somebody put in its place since.

A new file gets a mark of its own: a random text in an extended attribute, and the same text in the folder that keeps
what is known of the file. The attribute stays with the file when it is written, renamed, moved to another file system
(`mv`, `cp -a`) and after a reboot; a file that takes its name does not have it. Inode and device numbers would not do:
a new file often gets the inode number of the one just removed, and device numbers change with the next mount.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from pipeline.transfer.stage import Stage, StageState

ATTRIBUTE = "user.failback"
_FILE = "made"
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.ENOSPC, errno.E2BIG)
_BY_INODE = "inode:"


def put_mark(path: Path, stage: Stage) -> None:
    """Mark the file at `path`, which we just made. Durable when it returns. Raises OSError."""
    mark = secrets.token_hex(16)
    try:
        os.setxattr(path, ATTRIBUTE, mark.encode())
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise
        mark = f"{_BY_INODE}{path.stat().st_ino}"  # better than nothing
    stage.write(_FILE, mark.encode())


def has_mark(path: Path, stage: Stage) -> bool:
    """Whether the file at `path` is the one that was marked, or a faithful copy of what we left there."""
    try:
        mark = (stage.folder / _FILE).read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        mark = ""
    if mark.startswith(_BY_INODE):
        return mark == f"{_BY_INODE}{path.stat().st_ino}" or _is_copy(path, stage.state)
    try:
        if os.getxattr(path, ATTRIBUTE) == mark.encode():
            return True
    except OSError as error:
        if error.errno not in (*_NO_ATTRIBUTES, errno.ENODATA):
            raise
    return _is_copy(path, stage.state)


def _is_copy(path: Path, state: StageState | None) -> bool:
    """Whether length and time of the last write are those of the file when it was proved: `rsync -a` keeps them."""
    if state is None or state.state != "staged":
        return False
    kind, *fields = state.guard.split(":")
    if kind not in ("file", "image") or len(fields) != 5:
        return False
    _device, _inode, size, modified, _changed = fields
    now = path.stat()
    return (str(now.st_size), str(now.st_mtime_ns)) == (size, modified)


def is_ours(path: Path, stage: Stage) -> bool:
    """Whether the file may be overwritten. Of one that was being made when we were killed, its content will tell."""
    creating = stage.state is not None and stage.state.state == "creating"
    return stage.known and (creating or has_mark(path, stage))
