"""Corpus: an endless stream of the bytes of this machine's real files."""

import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.bench.extents import BLOCK

LARGEST = 64 << 20
"""Bytes taken of one file at most, so that no single file gives the image its character."""


def default_roots() -> list[Path]:
    """Directories that exist on this machine and hold ordinary programs, libraries, texts and source code."""
    candidates = [Path("/usr"), Path(sys.prefix), Path.home() / "go" / "pkg" / "mod"]
    return [root for root in candidates if root.is_dir()]


class Corpus:
    """Files below some roots in an order drawn from a seed, each padded to a file system block, again and again.

    The second and later passes put every byte but zero through a permutation: that keeps matches and entropy, hence
    the compression ratio, but leaves nothing for a deduplicating program to find that a real disk would not have.
    """

    def __init__(self, roots: Sequence[Path], seed: int) -> None:
        """Raises ValueError when there is no readable file below the roots."""
        self._files = sorted(_regular_files(roots))
        random.Random(seed).shuffle(self._files)
        self._stream = self._pieces()
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Exactly so many bytes, which follow those of the last call."""
        parts = []
        while length:
            if not self._rest:
                self._rest = memoryview(next(self._stream))
            part = self._rest[:length]
            self._rest = self._rest[len(part) :]
            length -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _pieces(self) -> Iterator[bytes]:
        number = 0
        while True:
            table, total = _permutation(number), 0
            for path in self._files:
                for piece in _blocks(path):
                    total += len(piece)
                    yield piece.translate(table) if number else piece
            if not total:
                raise ValueError("no readable file below the roots of the corpus")
            number += 1


def _blocks(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            taken = 0
            while taken < LARGEST and (piece := file.read(1 << 20)):
                taken += len(piece)
                yield piece + bytes(-len(piece) % BLOCK)
    except OSError:  # the machine goes on living: a file listed a second ago may be gone or unreadable
        return


def _permutation(number: int) -> bytes:
    others = list(range(1, 256))
    random.Random(number).shuffle(others)
    return bytes([0, *others])


def _regular_files(roots: Sequence[Path]) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    pending = [str(root) for root in roots]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:  # a directory that vanished or is closed to this user
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                if status.st_size and (status.st_dev, status.st_ino) not in seen:  # a hard link is one file
                    seen.add((status.st_dev, status.st_ino))
                    yield entry.path
