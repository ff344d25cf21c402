"""A raw disk file as a VMDK stream: the worker's own disk, which is in no repository."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.writers.vmdk_grain import STORED, length_of, stored
from pipeline.writers.vmdk_stream import GRAIN, TABLE_GRAINS, Shape, StreamEncoder

_ZEROS = bytes(GRAIN)


class ImageStream:
    """What `upload.send` takes. Reads the file twice: once for the length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"the worker's disk {path}"
        try:
            self.size = path.stat().st_size
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", remedy="correct `worker.image`") from error
        self._shape = Shape(self.size)
        used = [number for number, _data in self._grains()]
        tables = len({number // TABLE_GRAINS for number in used})
        self.length: int | None = self._shape.length(len(used) * STORED, tables)
        self._digest = hashlib.sha1()

    def __iter__(self) -> Generator[bytes]:
        self._digest = hashlib.sha1()
        encoder = StreamEncoder(self._shape, name="worker.vmdk", cid=1, adapter="lsilogic")
        for block in self._blocks(encoder):
            self._digest.update(block)
            yield block

    def sha1(self) -> str:
        """Of what was sent last."""
        return self._digest.hexdigest()

    def _blocks(self, encoder: StreamEncoder) -> Iterator[bytes]:
        yield encoder.front()
        for number, data in self._grains():
            pieces = stored(number, data)
            yield b"".join([encoder.place(number, length_of(pieces)), *pieces])
        yield encoder.end()

    def _grains(self) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            number = 0
            while data := file.read(GRAIN):
                if data.ljust(GRAIN, b"\0") != _ZEROS:
                    yield number, data.ljust(GRAIN, b"\0")
                number += 1
