"""Who writes to a file right now: a mounted loop device, swap, a running QEMU."""

from __future__ import annotations

import fcntl
import os
import struct

_F_OFD_GETLK = 36  # linux/include/uapi/asm-generic/fcntl.h
_QEMU_WRITE_BYTE = 101
"""QEMU holds a shared lock on byte 100 + bit of every permission it uses; writing is bit 1
(qemu/block/file-posix.c, RAW_LOCK_PERM_BASE; qemu/include/block/block-common.h, BLK_PERM_WRITE)."""

LIVE_REMEDY = "Stop the machine or unmount it, export a snapshot, or ask for a torn copy with --allow-live."


def qemu_writes(fd: int) -> bool:
    """Whether a program that follows QEMU's image locking (QEMU, qemu-nbd, our own writers) has it open to write."""
    question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _QEMU_WRITE_BYTE, 1, 0)
    try:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, question)
    except OSError:  # a file system without byte locks
        return False
    kind: int = struct.unpack("hhqqi4x", answer)[0]
    return kind != fcntl.F_UNLCK


def file_user(fd: int) -> str | None:
    """Who writes to this open regular file, in words; None when nobody is known to."""
    if qemu_writes(fd):
        return "a running QEMU or another restore writes to it (image lock)"
    return None
