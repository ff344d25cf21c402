"""A disk behind an NBD server: a running QEMU, qemu-nbd, nbdkit, a storage system."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from pipeline.errors import SourceChanged, SourceError, Unreadable, UsageError
from pipeline.exporters.base import Exporter, Extent
from pipeline.exporters.files import SECTOR, bad_range
from pipeline.nbd.address import Address
from pipeline.nbd.client import NbdClient
from pipeline.nbd.protocol import BASE_ALLOCATION, DIRTY_BITMAP, STATE_DIRTY, STATE_ZERO, NbdError, NbdLost, NbdRefused

_CONNECTIONS = 4
_TIMEOUT = 60.0


class NbdExporter(Exporter):
    """Reads an NBD export. Zeros come from `base:allocation`, changed blocks from `qemu:dirty-bitmap:*`.

    `identity` is None: a server cannot promise that nobody wrote. Nor does it say whether somebody writes now; let it
    serve a snapshot or a stopped machine's disk.
    """

    def __init__(self, name: str, client: NbdClient) -> None:
        self.name = name
        self._client = client
        self.size = client.size
        self.sector_size = SECTOR
        self.identity: str | None = None
        self.read_threads = client.connections

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        end = min(end, self.size)
        if start >= end:
            return
        if BASE_ALLOCATION not in self._client.terms.contexts:
            yield Extent(start, end - start, zero=False)
            return
        for offset, length, zero in _joined(self._status(BASE_ALLOCATION, start, end, STATE_ZERO)):
            yield Extent(offset, length, zero)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        try:
            self._client.read(offset, buffer)
        except NbdError as error:
            if error.code == errno.EIO:
                self._narrow(offset, buffer, error)
                return
            raise self._failed(error, f"cannot read {buffer.nbytes} bytes at {offset}") from error
        except NbdLost as error:
            raise self._gone(error) from error

    def _narrow(self, offset: int, buffer: memoryview, first: NbdError) -> None:
        """Servers report an error for a whole request; find the sectors that it is about."""

        def read(at: int, view: memoryview) -> None:
            try:
                self._client.read(at, view)
            except NbdError as error:
                raise OSError(error.code, error.message) from error

        try:
            bad, length = bad_range(read, offset, buffer, max(SECTOR, self._client.terms.min_block))
        except NbdLost as error:
            raise self._gone(error) from error
        if length:
            raise Unreadable(
                f"{self.name}: cannot read {length} bytes at {bad}: {first.message}",
                offset=bad,
                length=length,
                remedy="The server cannot read its own disk there. Look at its log.",
            ) from first

    def change_maps(self) -> list[str]:
        """Names of QEMU's dirty bitmaps, without the prefix of their contexts."""
        return [
            name.removeprefix(DIRTY_BITMAP) for name in self._client.terms.contexts if name.startswith(DIRTY_BITMAP)
        ]

    def changed_extents(self, name: str) -> Iterator[tuple[int, int]]:
        context = DIRTY_BITMAP + name
        if context not in self._client.terms.contexts:
            raise KeyError(name)
        for offset, length, dirty in _joined(self._status(context, 0, self.size, STATE_DIRTY)):
            if dirty:
                yield offset, length

    def _status(self, context: str, start: int, end: int, bit: int) -> Iterator[tuple[int, int, bool]]:
        try:
            for offset, length, flags in self._client.block_status(context, start, end):
                yield offset, length, bool(flags & bit)
        except NbdError as error:
            raise self._failed(error, f"cannot tell {context}") from error
        except NbdLost as error:
            raise self._gone(error) from error

    def check_unchanged(self) -> None:
        """The size is fixed for the life of a connection, so a fresh one is asked, where the server takes more."""
        try:
            size = self._client.size_now()
        except (OSError, NbdRefused, NbdLost) as error:
            raise SourceError(f"{self.name}: cannot be asked for its size again: {error}") from error
        if size != self.size:
            raise SourceChanged(f"{self.name}: had {self.size} bytes at first, now {size}", remedy="Export again.")

    def close(self) -> None:
        self._client.close()

    def _failed(self, error: NbdError, what: str) -> SourceError:
        return SourceError(f"{self.name}: {what}: {error.message}", remedy="Look at the log of the NBD server.")

    def _gone(self, error: NbdLost) -> SourceError:
        return SourceError(f"{self.name}: {error}", remedy="Look at the NBD server and start again.")


def _joined(ranges: Iterator[tuple[int, int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Neighbours with the same state as one: a server cuts its answers where it likes."""
    start = length = 0
    state = False
    for offset, part, flag in ranges:
        if length and flag == state:
            length += part
            continue
        if length:
            yield start, length, state
        start, length, state = offset, part, flag
    if length:
        yield start, length, state


def connect(name: str, make: Callable[[], NbdClient]) -> NbdClient:
    """Run `make`, with what can go wrong in it as SourceError."""
    try:
        return make()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"{name}: cannot connect: {reason}", remedy="Is the NBD server running?") from error
    except (NbdRefused, NbdLost) as error:
        raise SourceError(f"{name}: {error}", remedy="Look at the export's name and the server's log.") from error


def open_nbd(spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter:
    """The factory of the entry points `nbd` and `nbd+unix`. What the server sends is the disk itself, so `raw` is the
    only format; whether it is live cannot be known."""
    if image_format not in (None, "raw"):
        raise UsageError(f"{spec}: an NBD export is read as it is; let the server open the {image_format} image")
    address = Address.parse(spec)
    client = connect(
        spec,
        lambda: NbdClient(
            lambda: address.connect(_TIMEOUT), address.export, connections=_CONNECTIONS, timeout=_TIMEOUT
        ),
    )
    return NbdExporter(spec, client)
