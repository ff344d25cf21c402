"""Cache: what was built before, by the digest of everything that went into it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEEP_SECONDS = 30 * 24 * 3600
"""What nobody used for so long is removed."""
_KEEP_BYTES = 2 << 30
"""Of what was made, what was used last is kept up to this size: each change of the recipe makes all of it anew."""


class Cache:
    """A folder of entries, each a folder of files that appeared whole; several processes may use it at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = folder / "packages"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else builds meanwhile. What a killed builder left is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path in (*self.folder.glob("partial-*"), *self.packages.glob("partial-*")):
                shutil.rmtree(path)
            yield
            self._forget(self.folder.glob("made-*"))
            self._forget(self.packages.glob("*.deb"))

    def entry(self, digest: str, make: Callable[[Path], None]) -> Path:
        """The entry with this digest; `make` fills its folder when there is none. Call it while locked."""
        place = self.folder / f"made-{digest}"
        if not place.exists():
            partial = Path(tempfile.mkdtemp(prefix="partial-", dir=self.folder))
            try:
                make(partial)
                partial.rename(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        os.utime(place)
        return place

    def _forget(self, paths: Iterable[Path]) -> None:
        left = _KEEP_BYTES
        for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
            left -= sum(file.lstat().st_blocks * 512 for file in (path, *path.rglob("*")))
            if left > 0 and time.time() - path.stat().st_mtime < _KEEP_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def default_folder(name: str = "guest") -> Path:
    """`failback/NAME` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "failback" / name


def digest(*parts: object, files: Iterable[Path] = ()) -> str:
    """Of the representation of `parts`, and of the names, modes and contents of files and folders."""
    hasher = hashlib.sha256(repr(parts).encode())
    for path in files:
        for file in sorted([path, *path.rglob("*")]):
            if file.is_file() and file.suffix != ".pyc":
                hasher.update(repr((file.name, file.stat().st_mode, file.read_bytes())).encode())
    return hasher.hexdigest()[:32]
