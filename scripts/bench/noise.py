"""Noise: a disk on which nothing can be compressed and nothing is there twice."""

import hashlib
import random
from pathlib import Path

PIECE = 4 << 20


def make_noise(path: Path, size: int, *, seed: int) -> None:
    """Write `size` random bytes, the same for the same seed."""
    source = random.Random(seed)
    with open(path, "wb") as file:
        for start in range(0, size, PIECE):
            file.write(source.randbytes(min(PIECE, size - start)))


def noise(seed: int, place: int, length: int) -> bytes:
    """As much that cannot be compressed, at memory's speed; the same for the same seed and place."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # late: see the package's docstring

    key = hashlib.sha256(f"noise {seed} {place}".encode()).digest()
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(length))
