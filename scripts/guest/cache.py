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
"""An entry that nobody used for so long is removed."""


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
            for path in self.folder.glob("partial-*"):
                shutil.rmtree(path)
            self._forget(self.folder.glob("made-*"))
            self._forget(self.packages.glob("*.deb"))
            yield

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
        for path in paths:
            if time.time() - path.stat().st_mtime < _KEEP_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def default_folder() -> Path:
    """`failback/guest` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "failback" / "guest"


def digest(*parts: object, files: Iterable[Path] = ()) -> str:
    """Of the representation of `parts`, and of the names, modes and contents of files and folders."""
    hasher = hashlib.sha256(repr(parts).encode())
    for path in files:
        for file in sorted([path, *path.rglob("*")]):
            if file.is_file():
                hasher.update(repr((file.name, file.stat().st_mode, file.read_bytes())).encode())
    return hasher.hexdigest()[:32]
