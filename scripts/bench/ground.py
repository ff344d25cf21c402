"""Ground: the directories a benchmark works in."""

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Ground:
    """The image to store, a directory for logs and caches, one for the servers' objects, one for restored images."""

    image: Path
    scratch: Path
    store: Path
    restores: Path

    @property
    def log(self) -> Path:
        """What the measured programs print."""
        return self.scratch / "commands.log"


@contextlib.contextmanager
def workplace(work: Path, restores: Path | None = None, store: Path | None = None) -> Iterator[Ground]:
    """Directories below the given ones, removed at the end, also after an interrupt or a polite kill."""
    former = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.ExitStack() as stack:

            def directory(parent: Path) -> Path:
                parent.mkdir(parents=True, exist_ok=True)
                return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=parent.resolve())))

            here = directory(work)
            # The image is alone in its directory: some tools store directories.
            (here / "image").mkdir()
            (here / "scratch").mkdir()
            image = here / "image" / "disk.raw"
            yield Ground(image, here / "scratch", directory(store or work), directory(restores or work))
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What cleans up is not interrupted: a second Ctrl-C has to wait."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")
