"""A store in a directory: local disk, NFS, or anything with rename(2), link(2) and fsync(2)."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import (
    AccessDenied,
    AlreadyExists,
    CorruptObject,
    NotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UsageError,
)
from pipeline.store.base import NO_REPOSITORY, Abilities, Bytes, ObjectInfo, Store, check_key, flat, is_key
from pipeline.store.probe import probe

TEMPORARY = ".tmp"
"""Below the root: no part of a key begins with a dot, so a listing never sees it."""

TEMPORARY_AGE = 24 * 3600.0
"""Seconds after which a temporary file is taken for one of a killed writer. A writer that only slept puts again."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EROFS, errno.EPERM)
_TRANSIENT = (
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EINTR,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ECONNRESET,
    errno.ENOTCONN,
)


class DirectoryStore(Store):
    """Objects are files below `root`, which must exist unless `create`: a disk that is not mounted is an error.

    The directory is held open, so a mount that goes away cannot turn into an empty store.
    """

    def __init__(self, root: Path | str, *, create: bool = False) -> None:
        self.root = Path(root).absolute()
        self.name = str(self.root)
        self._made: set[str] = {""}
        self._making = threading.Lock()
        with self._explained("open", ""):
            if create:
                self.root.mkdir(parents=True, exist_ok=True)
            try:
                self._fd = os.open(self.root, _DIRECTORY)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                raise UsageError(
                    f"there is no repository at {self.name}: there is no such folder", remedy=NO_REPOSITORY
                ) from error
        self._remove_old_temporaries()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        check_key(key)
        view = flat(data)
        with self._explained("put", key):
            temporary = self._write_temporary(view)
            try:
                self._move(temporary, key, create=create)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=self._fd)

    def get(self, key: str) -> memoryview:
        with self._opened(key, "get") as (fd, size):
            return _pread(fd, size, 0)

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        with self._opened(key, "get") as (fd, size):
            part = _pread(fd, length, offset) if offset < size else memoryview(b"")
        if len(part) != length:
            raise CorruptObject(f"{key} in {self.name} has {size} bytes, too short for {length} bytes at {offset}")
        return part

    def head(self, key: str) -> ObjectInfo | None:
        check_key(key)
        with self._explained("head", key):
            try:
                status = os.stat(key, dir_fd=self._fd)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                self._check_root()
                return None
        return _info(key, status) if stat.S_ISREG(status.st_mode) else None

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        folder, _, _ = prefix.rpartition("/")
        self._check_root()
        yield from self._walk(folder + "/" if folder else "", prefix, after)

    def delete_many(self, keys: Iterable[str]) -> None:
        parents = set()
        for key in keys:
            check_key(key)
            with self._explained("delete", key):
                try:
                    os.unlink(key, dir_fd=self._fd)
                    parents.add(_parent(key))
                except OSError as error:
                    if error.errno not in (*_ABSENT, errno.EISDIR):
                        raise
                    self._check_root()
        for parent in parents:
            with self._explained("delete", parent):
                self._sync_directory(parent)

    def probe(self) -> Abilities:
        return probe(self)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_temporary(self, view: memoryview) -> str:
        name = f"{TEMPORARY}/{os.getpid():x}-{secrets.token_hex(8)}"
        self._make_directory(TEMPORARY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o666, dir_fd=self._fd)
        except FileNotFoundError:
            self._made.discard(TEMPORARY)
            self._make_directory(TEMPORARY)
            fd = os.open(name, flags, 0o666, dir_fd=self._fd)
        try:
            done = 0
            while done < len(view):
                done += os.write(fd, view[done:])
            os.fsync(fd)
        except OSError:
            os.unlink(name, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        return name

    def _move(self, temporary: str, key: str, *, create: bool) -> None:
        """Give the finished file its name, durably. A folder that somebody removed is made again, once."""
        parent = _parent(key)
        self._make_directory(parent)
        try:
            self._name(temporary, key, create=create)
        except FileNotFoundError:
            if not self._exists(temporary):
                raise StoreUnavailable(f"the temporary file of {key} in {self.name} was removed meanwhile") from None
            with self._making:
                self._made = {""}
            self._make_directory(parent)
            self._name(temporary, key, create=create)
        self._sync_directory(parent)

    def _name(self, temporary: str, key: str, *, create: bool) -> None:
        if not create:
            try:
                os.rename(temporary, key, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except IsADirectoryError as error:
                raise StoreError(f"{key} is the folder of other objects in {self.name}") from error
            return
        try:
            os.link(temporary, key, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except FileExistsError as error:
            # NFS may lose the answer of a link that it made and find it when asking again: the count tells.
            if os.stat(temporary, dir_fd=self._fd).st_nlink < 2:
                raise AlreadyExists(f"{key} already exists in {self.name}") from error
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EMLINK):
                raise
            raise StoreError(
                f"the file system of {self.name} has no hard links, so {key} cannot be created safely",
                remedy="put the repository on a file system with hard links, such as ext4, XFS or NFS",
            ) from error

    def _make_directory(self, folder: str) -> None:
        """Make `folder` and what is above it, durably; known ones cost nothing."""
        if folder in self._made:
            return
        with self._making:
            path = ""
            for part in folder.split("/"):
                above, path = path, f"{path}/{part}" if path else part
                if path in self._made:
                    continue
                with suppress(FileExistsError):
                    os.mkdir(path, dir_fd=self._fd)
                self._sync_directory(above)
                self._made.add(path)

    def _sync_directory(self, folder: str) -> None:
        fd = os.open(folder or ".", _DIRECTORY, dir_fd=self._fd)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (
                errno.EINVAL,
                errno.EOPNOTSUPP,
            ):  # some network file systems sync names by themselves
                raise
        finally:
            os.close(fd)

    @contextmanager
    def _opened(self, key: str, verb: str) -> Iterator[tuple[int, int]]:
        """A descriptor and the size of an object's file."""
        check_key(key)
        with self._explained(verb, key):
            try:
                fd = os.open(key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                self._check_root()
                raise NotFound(f"{key} is not in {self.name}") from error
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise NotFound(f"{key} is not in {self.name}")
                yield fd, status.st_size
            finally:
                os.close(fd)

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Files below `folder` (empty, or ending in '/') in key order."""
        with self._explained("list", folder):
            found = sorted(self._entries(folder, prefix, after), key=lambda entry: entry[0])
        for key, info in found:
            if info is not None:
                yield info
            else:
                yield from self._walk(key, prefix, after)

    def _entries(self, folder: str, prefix: str, after: str) -> Iterator[tuple[str, ObjectInfo | None]]:
        """What is in one folder: sub-folders as (key with '/', None), so that 'a-b' sorts before 'a/b' as in S3."""
        try:
            fd = os.open(folder or ".", _DIRECTORY, dir_fd=self._fd)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            self._check_root()
            return
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    key = folder + entry.name
                    if not is_key(key):
                        continue
                    if entry.is_dir():
                        key += "/"
                        wanted = key.startswith(prefix) or prefix.startswith(key)
                        if wanted and (key > after or after.startswith(key)):
                            yield key, None
                    elif key.startswith(prefix) and key > after:
                        try:
                            status = entry.stat()
                        except FileNotFoundError:
                            continue  # deleted since the folder was read
                        if stat.S_ISREG(status.st_mode):
                            yield key, _info(key, status)
        finally:
            os.close(fd)

    def _exists(self, path: str) -> bool:
        try:
            os.stat(path, dir_fd=self._fd)
        except FileNotFoundError:
            return False
        return True

    def _check_root(self) -> None:
        """Absence is only proved while the root itself is there."""
        if os.fstat(self._fd).st_nlink == 0:
            raise StoreUnavailable(f"{self.name} was removed while in use", remedy="create or mount it again")

    def _remove_old_temporaries(self) -> None:
        """Killed writers leave whole or partial temporary files: harmless, but they take space."""
        with suppress(OSError):
            fd = os.open(TEMPORARY, _DIRECTORY, dir_fd=self._fd)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):
                            if entry.stat().st_mtime < time.time() - TEMPORARY_AGE:
                                os.unlink(entry.name, dir_fd=fd)
            finally:
                os.close(fd)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        """Say what an OSError means for a store."""
        try:
            yield
        except OSError as error:
            what = f"cannot {verb} {key or 'the store'} in {self.name}: {error.strerror or error}"
            if error.errno in _FULL:
                raise StoreFull(what, remedy="free space, raise the quota, or collect garbage") from error
            if error.errno in _DENIED:
                raise AccessDenied(
                    what, remedy="check owner, permissions and whether it is mounted read-only"
                ) from error
            if error.errno in _TRANSIENT:
                raise StoreUnavailable(what, remedy="check the mount and its server") from error
            if error.errno in (errno.ENOTDIR, errno.EISDIR):
                raise StoreError(what, remedy="an object stands where the key needs a folder") from error
            raise StoreError(what, remedy="check the disk and the kernel's log") from error


def _parent(key: str) -> str:
    return key.rpartition("/")[0]


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _pread(fd: int, length: int, offset: int) -> memoryview:
    """Up to `length` bytes from `offset`; fewer only at the end of the file."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return memoryview(data)
    parts = [data]
    done = len(data)
    while done < length and (data := os.pread(fd, length - done, offset + done)):
        parts.append(data)
        done += len(data)
    return memoryview(b"".join(parts))
