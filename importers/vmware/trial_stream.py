"""A small disk as a VMDK stream, for trials: a few grains with known bytes, and much that is zero between them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator

from pipeline.writers.vmdk_grain import compressed, compressor, length_of, stored
from pipeline.writers.vmdk_stream import GRAIN, Shape, StreamEncoder

SIZE = 64 << 20
"""Bytes of the disk: two grain tables."""
GRAINS = (0, 3, SIZE // GRAIN - 1)
LAST = b"failback-trial-1".ljust(GRAIN, b"\x5a")
"""The last grain: what the end of the disk must read as."""


class TrialStream:
    """What `upload.send` takes. `level` 0: stored grains, the length is announced; else compressed, and it is not."""

    name = "the trial's disk"

    def __init__(self, level: int = 0) -> None:
        self._level = level
        self.length = None if level else sum(len(part) for part in self._parts())
        self._digest = hashlib.sha1()
        self.sent = 0

    def __iter__(self) -> Generator[bytes]:
        self._digest, self.sent = hashlib.sha1(), 0
        for part in self._parts():
            self._digest.update(part)
            self.sent += len(part)
            yield part

    def sha1(self) -> str:
        """Of what was sent last."""
        return self._digest.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        encoder = StreamEncoder(Shape(SIZE), name="trial.vmdk", cid=0x7A11AB1E, adapter="lsilogic")
        yield encoder.front()
        for grain in GRAINS:
            plain = LAST if grain == GRAINS[-1] else bytes([grain + 1]) * GRAIN
            pieces = compressed(grain, plain, compressor(self._level)) if self._level else stored(grain, plain)
            yield encoder.place(grain, length_of(pieces))
            yield b"".join(bytes(piece) for piece in pieces)
        yield encoder.end()
