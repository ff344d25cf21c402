"""Who writes to a disk right now: mounts, swap, md, LVM and dm on top of it, loop devices, a running QEMU.

The kernel's own view is in /proc/*/mountinfo (proc(5)), /proc/swaps and /sys/dev/block; an exclusive open tells of
users that these do not name, such as a mount in another namespace.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIVE_REMEDY = "Stop the machine or unmount it, export a snapshot, or ask for a torn copy with --allow-live."

_F_OFD_GETLK = 36  # linux/include/uapi/asm-generic/fcntl.h
_QEMU_WRITE_BYTE = 101
"""QEMU holds a shared lock on byte 100 + bit of every permission it uses; writing is bit 1
(qemu/block/file-posix.c, RAW_LOCK_PERM_BASE; qemu/include/block/block-common.h, BLK_PERM_WRITE)."""
_BLOCK = Path("/sys/dev/block")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: the block devices ("major:minor") below it, where, and whether it is read-only."""

    numbers: frozenset[str]
    point: str
    read_only: bool


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
    return _file_user(fd, read_only_counts=False)


def file_holder(fd: int) -> str | None:
    """Like `file_user`, for a file that we want to write: whoever uses it at all."""
    return _file_user(fd, read_only_counts=True)


def _file_user(fd: int, *, read_only_counts: bool) -> str | None:
    if qemu_writes(fd):
        return "a running QEMU or another restore writes to it (image lock)"
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) in _swap_files():
        return "it is swap space"
    for name, number in _loops_on(status):
        user = _device_user(number, read_only_counts=read_only_counts)
        if user:
            return f"it backs /dev/{name}, and {user}"
    return None


def device_user(number: str) -> str | None:
    """Who may write to the block device `major:minor`, its partitions, or what is built on them; None for nobody.

    A file system that is mounted read-only is no writer.
    """
    return _device_user(number, read_only_counts=False)


def device_holder(number: str) -> str | None:
    """Like `device_user`, for a disk that we want to write: whoever uses it at all."""
    return _device_user(number, read_only_counts=True)


def _device_user(number: str, *, read_only_counts: bool) -> str | None:
    found = mounts()
    swaps = _swap_devices()
    for node in _tree(number):
        name = _name(node)
        quiet = False
        for mount in found:
            if node in mount.numbers:
                if read_only_counts or not mount.read_only:
                    return f"/dev/{name} is mounted at {mount.point}"
                quiet = True
        if node in swaps:
            return f"/dev/{name} is swap space"
        action = _text(_BLOCK / node / "md/sync_action")
        if action not in ("", "idle", "frozen"):
            return f"/dev/{name} is an array under {action}"
        for loop, below in _loops_on(_node_status(node)):
            user = _device_user(below, read_only_counts=read_only_counts)
            if user:
                return f"/dev/{name} backs /dev/{loop}, and {user}"
        if not quiet and _is_leaf(node) and _claimed(name):
            return f"/dev/{name} is held by another program, or mounted in another namespace"
    return None


def mounts() -> list[Mount]:
    """Every mounted file system in our mount namespace and in that of process 1, where that may be read."""
    lines: set[str] = set()
    for process in ("self", "1"):
        try:
            lines.update(Path(f"/proc/{process}/mountinfo").read_text("utf-8", "surrogateescape").splitlines())
        except OSError:
            continue
    found = []
    for line in sorted(lines):
        left, _, right = line.partition(" - ")
        fields, details = left.split(), right.split()
        if len(fields) < 6 or len(details) < 3:
            continue
        numbers = {fields[2]}
        source = _unescape(details[1])
        if fields[2].startswith("0:") and source.startswith("/dev/"):
            # btrfs and its like show a number that belongs to no block device.
            try:
                status = os.stat(source)  # noqa: PTH116 - the source is a name as the kernel knows it
            except OSError:
                pass
            else:
                if stat.S_ISBLK(status.st_mode):
                    numbers.add(_number(status.st_rdev))
        if details[0] == "btrfs":
            numbers |= _btrfs_family(numbers)
        # The file system's own options count: a read-only bind mount can lie over a writable file system.
        found.append(Mount(frozenset(numbers), _unescape(fields[4]), "ro" in details[2].split(",")))
    return found


def _btrfs_family(numbers: set[str]) -> set[str]:
    for devices in Path("/sys/fs/btrfs").glob("*/devices"):
        family = {_text(member / "dev") for member in devices.iterdir()}
        if family & numbers:
            return family - {""}
    return set()


def _tree(number: str) -> Iterator[str]:
    """The device, its partitions, and whatever is built on any of them."""
    seen: set[str] = set()
    waiting = [number]
    while waiting:
        node = waiting.pop()
        if node in seen or not node:
            continue
        seen.add(node)
        yield node
        waiting += _partitions(node) + _holders(node)


def _partitions(node: str) -> list[str]:
    return [_text(mark.parent / "dev") for mark in (_BLOCK / node).glob("*/partition")]


def _holders(node: str) -> list[str]:
    return [_text(holder / "dev") for holder in (_BLOCK / node / "holders").glob("*")]


def _is_leaf(node: str) -> bool:
    return not _partitions(node) and not _holders(node)


def _claimed(name: str) -> bool:
    """open(2) with O_EXCL fails with EBUSY on a block device that a mount or a program holds exclusively."""
    try:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.EBUSY
    os.close(fd)
    return False


def _loops_on(status: os.stat_result | None) -> Iterator[tuple[str, str]]:
    """(name, major:minor) of the loop devices on a file or on a block device."""
    if status is None:
        return
    for loop in Path("/sys/block").glob("loop*/loop/backing_file"):
        backing = _text(loop)
        try:
            other = Path(backing).stat()
        except OSError:
            continue
        if stat.S_ISBLK(status.st_mode):
            same = stat.S_ISBLK(other.st_mode) and other.st_rdev == status.st_rdev
        else:
            same = (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino)
        if same:
            yield loop.parent.parent.name, _text(loop.parent.parent / "dev")


def _swap_names() -> list[str]:
    return [_unescape(line.split()[0]) for line in _text(Path("/proc/swaps")).splitlines()[1:] if line.split()]


def _swap_devices() -> set[str]:
    found = set()
    for name in _swap_names():
        try:
            status = Path(name).stat()
        except OSError:
            continue
        if stat.S_ISBLK(status.st_mode):
            found.add(_number(status.st_rdev))
    return found


def _swap_files() -> set[tuple[int, int]]:
    found = set()
    for name in _swap_names():
        try:
            status = Path(name).stat()
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def _node_status(node: str) -> os.stat_result | None:
    try:
        return Path("/dev", _name(node)).stat()
    except OSError:
        return None


def _name(node: str) -> str:
    """The kernel's name of a device; "!" stands for a slash in it."""
    return (_BLOCK / node).resolve().name.replace("!", "/")


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return ""


def _unescape(field: str) -> str:
    """The kernel writes blanks and backslashes of names as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
