"""A target behind an NBD server."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from pipeline.errors import TargetError, TargetFull, TargetMismatch
from pipeline.exporters.base import Extent
from pipeline.exporters.nbd import NbdExporter
from pipeline.nbd.address import Address
from pipeline.nbd.client import NbdClient
from pipeline.nbd.protocol import Flag, NbdError, NbdLost, NbdRefused
from pipeline.store.base import Bytes
from pipeline.writers.base import BlockWriter

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CONNECTIONS = 4
_TIMEOUT = 60.0


class NbdWriter(BlockWriter):
    """Writes an NBD export, over several connections where the server keeps them consistent."""

    def __init__(self, name: str, client: NbdClient, *, fresh: bool = False) -> None:
        """Raises TargetError when the export is read-only or cannot be flushed."""
        self.name = name
        self.size = client.size
        self.fresh = fresh
        self._client = client
        self._broken: TargetError | None = None
        self._reader = NbdExporter(name, client)
        if client.terms.flags & Flag.READ_ONLY:
            raise TargetError(f"{name}: the export is read-only", remedy="Let the server export it writable.")
        if not client.terms.flags & Flag.SEND_FLUSH:
            raise TargetError(
                f"{name}: the server offers no flush, so nothing could ever be acknowledged",
                remedy="Use a server that does (qemu-nbd, nbdkit's file plugin).",
            )

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        try:
            self._client.write(offset, buffers)
        except (NbdError, NbdLost) as error:
            length = sum(memoryview(buffer).nbytes for buffer in buffers)
            raise self._failed(error, f"cannot write {length} bytes at {offset}") from error

    def discard(self, offset: int, length: int) -> None:
        try:
            self._client.zero(offset, length)
        except (NbdError, NbdLost) as error:
            raise self._failed(error, f"cannot clear {length} bytes at {offset}") from error

    def flush(self) -> None:
        if self._broken is not None:  # a second fsync after a failed one proves nothing
            raise self._broken
        try:
            self._client.flush()
        except (NbdError, NbdLost) as error:
            self._broken = self._failed(error, "cannot store what was written")
            raise self._broken from error

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        return self._reader.extents(start, end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._reader.read_into(offset, buffer)

    def guard(self) -> str:
        """Never equal: a server does not tell who else wrote."""
        return f"unknown:{os.urandom(16).hex()}"

    def close(self) -> None:
        self._client.close()

    def _failed(self, error: NbdError | NbdLost, what: str) -> TargetError:
        if isinstance(error, NbdError) and error.code in _FULL:
            return TargetFull(
                f"{self.name}: {what}: {error.message}",
                remedy="Make room there and start again: what was flushed is not written twice.",
            )
        return TargetError(f"{self.name}: {what}: {error}", remedy="Look at the log of the NBD server.")


def open_nbd(uri: str, *, size: int) -> NbdWriter:
    """Write to `nbd://` or `nbd+unix://`. The export may be larger than `size`, never smaller (TargetMismatch)."""
    address = Address.parse(uri)
    try:
        client = NbdClient(
            lambda: address.connect(_TIMEOUT), address.export, connections=_CONNECTIONS, timeout=_TIMEOUT
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise TargetError(f"{uri}: cannot connect: {reason}", remedy="Is the NBD server running?") from error
    except (NbdRefused, NbdLost) as error:
        raise TargetError(f"{uri}: {error}", remedy="Look at the export's name and the server's log.") from error
    try:
        if client.size < size:
            raise TargetMismatch(f"{uri}: has {client.size} bytes, the disk has {size}", remedy="Export a larger disk.")
        return NbdWriter(uri, client)
    except BaseException:
        client.close()
        raise
