"""A raw disk file as a VMDK stream: the worker's own disk, which is in no repository."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.progress import Counters
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
        self.counters = Counters(phase="stream", disk=self.name, total=self.size)
        self._sha1 = ""

    def __iter__(self) -> Generator[bytes]:
        digest = hashlib.sha1()
        self.counters = Counters(phase="stream", disk=self.name, total=self.size)
        encoder = StreamEncoder(self._shape, name="worker.vmdk", cid=1, adapter="lsilogic")
        for block in self._blocks(encoder):
            digest.update(block)
            self.counters.sent += len(block)
            yield block
        self._sha1 = digest.hexdigest()

    def digest(self, name: str = "sha1") -> str:
        if name != "sha1" or not self._sha1:
            raise RuntimeError(f"{self.name}: no {name} of the stream is known")
        return self._sha1

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
