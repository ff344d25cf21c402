"""Peer: the verbs a round asks of every program."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from scripts.bench.measure import Command


@dataclass(frozen=True)
class Site:
    """What a peer is given: a disk image, an empty directory of its own, an S3 server with an empty bucket."""

    image: Path
    scratch: Path
    endpoint: str
    bucket: str


class Peer(ABC):
    """One program. Each verb says what to run; who runs it decides what is timed."""

    name: ClassVar[str]
    over_s3: ClassVar[bool] = True
    """Stores in the bucket; otherwise in its scratch directory, or nowhere."""
    steps: ClassVar[frozenset[str]] = frozenset({"full", "incremental", "restore"})

    def __init__(self, site: Site) -> None:
        self.site = site

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """What the program says about itself. Raises ToolMissing when it is not there."""

    def prepare(self) -> list[Command]:
        """Make an empty repository; not timed."""
        return []

    @abstractmethod
    def full(self) -> Command:
        """Store the image for the first time."""

    def incremental(self) -> Command:
        """Store the image once more, without being told what changed."""
        return self.full()

    def move(self) -> list[Command]:
        """Become another machine that has seen nothing of the repository yet: a restore starts there; not timed."""
        return []

    @abstractmethod
    def restore(self, target: Path) -> Command:
        """Write the last stored state below the empty directory `target`."""

    def restored(self, target: Path) -> Path:
        """The disk image a restore left below `target`."""
        size = self.site.image.stat().st_size
        files = [path for path in target.rglob("*") if path.is_file() and path.stat().st_size == size]
        if len(files) != 1:
            raise RuntimeError(f"{self.name} left {len(files)} files of {size} bytes in {target}, not one")
        return files[0]

    def stored(self) -> int:
        """Bytes kept in the scratch directory, for a peer that does not use the bucket."""
        return 0
