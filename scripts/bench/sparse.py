"""Sparse: large disks with little on them, scattered, and changes of whole chunks on such disks."""

import math
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.bench.corpus import Corpus
from scripts.bench.difference import CHUNK
from scripts.bench.extents import BLOCK, Extent
from scripts.bench.image import write_runs

MEAN_RUN = 1 << 20


def make_sparse(path: Path, size: int, data: int, *, roots: Sequence[Path], seed: int = 1) -> int:
    """Write an image of `size` bytes with about `data` bytes in runs of 1 MiB on average, one in each equal part."""
    return write_runs(path, size, _scattered(size, data, seed), Corpus(roots, seed))


def change_chunks(path: Path, count: int, *, seed: int = 1) -> list[Extent]:
    """Rewrite so many whole chunks of 64 KiB, one in each equal part of the disk, holes included.

    The contents cannot be compressed and depend on the seed only: what a program stores for them is known to the byte.
    """
    draw = random.Random(seed)
    part = path.stat().st_size // count
    extents = []
    with open(path, "r+b", buffering=0) as disk:
        for number in range(count):
            offset = (number * part + draw.randrange(part)) // CHUNK * CHUNK
            extents.append(Extent(offset, CHUNK))
            os.pwrite(disk.fileno(), draw.randbytes(CHUNK), offset)
    if len(set(extents)) < count:
        raise ValueError(f"{path} is too small for {count} different chunks")
    return extents


def make_dotted(path: Path, chunks: int) -> None:
    """Write an image in which every chunk of 64 KiB holds data, each its own, in one block of the file system."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.truncate(descriptor, chunks * CHUNK)
        for number in range(chunks):
            block = (number + 1).to_bytes(8, "little").ljust(BLOCK, b"\0")
            os.pwrite(descriptor, block, number * CHUNK)
    finally:
        os.close(descriptor)


def _scattered(size: int, data: int, seed: int) -> Iterator[Extent]:
    draw = random.Random(seed)
    count = max(1, data // MEAN_RUN)
    part = size // count
    for number in range(count):
        length = round(math.exp(draw.uniform(math.log(MEAN_RUN / 8), math.log(MEAN_RUN * 3.4))))
        length = min(max(BLOCK, length // BLOCK * BLOCK), part // BLOCK * BLOCK)
        offset = number * part + draw.randrange(part - length + 1)
        yield Extent(offset // BLOCK * BLOCK, length)
