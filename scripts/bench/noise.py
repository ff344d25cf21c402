"""Noise: a disk on which nothing can be compressed and nothing is there twice."""

import random
from pathlib import Path

PIECE = 4 << 20


def make_noise(path: Path, size: int, *, seed: int) -> None:
    """Write `size` random bytes, the same for the same seed."""
    source = random.Random(seed)
    with open(path, "wb") as file:
        for start in range(0, size, PIECE):
            file.write(source.randbytes(min(PIECE, size - start)))
