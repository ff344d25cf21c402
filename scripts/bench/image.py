"""Image: a raw disk image about half full of real file contents, the rest holes; made without root."""

import math
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.bench.corpus import Corpus
from scripts.bench.extents import BLOCK, Extent

GIB = 1 << 30
SHORTEST, LONGEST = 64 << 10, 16 << 20
"""Bytes of a run of data: the space between log-uniform small files and large ones."""


def layout(size: int, fill: float, seed: int) -> Iterator[Extent]:
    """Where the data of an image lies: runs of log-uniform length with holes between them.

    Depends on the arguments only, not on the machine. `fill` is the share of the bytes that hold data, from 0 to 1.
    """
    draw = random.Random(seed)
    longest = max(SHORTEST, min(LONGEST, size // 64))
    position = 0
    while position < size:
        length = _whole_blocks(math.exp(draw.uniform(math.log(SHORTEST), math.log(longest))))
        yield Extent(position, min(length, size - position))
        position += length + _whole_blocks(length * (1 - fill) / fill * draw.uniform(0.5, 1.5))


def make_image(path: Path, size: int, *, roots: Sequence[Path], fill: float = 0.5, seed: int = 1) -> int:
    """Write a sparse raw image of `size` bytes; returns the bytes of data in it."""
    corpus = Corpus(roots, seed)
    return write_runs(path, size, layout(size, fill, seed), corpus)


def write_runs(path: Path, size: int, runs: Iterator[Extent], corpus: Corpus) -> int:
    """Make a file of `size` bytes with the corpus in these runs and holes elsewhere; returns the bytes of data."""
    written = 0
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.truncate(descriptor, size)
        for run in runs:
            for offset in range(run.offset, run.end, 1 << 20):
                piece = corpus.read(min(1 << 20, run.end - offset))
                written += os.pwrite(descriptor, piece, offset)
    finally:
        os.close(descriptor)
    return written


def _whole_blocks(length: float) -> int:
    return max(1, round(length / BLOCK)) * BLOCK
