"""A lease of HttpNfc: vSphere makes a machine and takes its disks from us, as long as we say that we are there.

States: initializing, ready, done, error. A lease that is not renewed for `info.leaseTimeout` seconds ends with error,
and vSphere takes away what it had of the machine; so does `abort`. Renewing has a thread of its own, for an upload, or
S3, may be silent for minutes. (HttpNfcLease and HttpNfcLeaseInfo in the vSphere API reference.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.properties import values_of
from pipeline.errors import (
    FailbackError,
    TargetBusy,
    TargetError,
    TargetFull,
    TargetUnavailable,
    Unsupported,
)
from pipeline.target import Control

RENEW_SECONDS = 15.0
"""Between signs of life, at most; a quarter of the lease's time when that is less."""
_NO_MATTER: tuple[type[Exception], ...] = (REFUSED, FailbackError, *CUT)
_AGAIN = "run the same command again: the machine is imported afresh"


@dataclass(frozen=True, slots=True)
class DeviceUrl:
    """Where one disk is sent to. The URL is a secret: it holds its own ticket."""

    key: str
    import_key: str
    url: str
    thumbprint: str
    """SHA-1 of the host's certificate; empty: not told."""
    certificate: str
    """PEM (vSphere 9); empty: not told."""


@dataclass(frozen=True, slots=True)
class Received:
    """What the host says that it got for one disk. 0 and empty: not told."""

    key: str
    sha1: str
    size: int
    capacity: int


class Lease:
    """Once it is ready it is renewed, to the end of its `with` block; one that was not completed in it is aborted."""

    def __init__(self, connection: Connection, lease: Any, control: Control, about: str) -> None:
        self._connection, self._lease, self._control, self.about = connection, lease, control, about
        self._percent = 0
        self._seconds = RENEW_SECONDS
        self._ended = threading.Event()
        self._broken = threading.Event()
        self._reason = ""
        self._done = False
        self._thread: threading.Thread | None = None

    @property
    def id(self) -> str:
        return str(self._lease._moId)

    def ready(self) -> Any:
        """Waits until it is; its HttpNfcLeaseInfo. Reading `info` earlier is a fault, and so is renewing."""
        while True:
            self._control.check()
            state = self._state()
            if state == "ready":
                info = values_of(self._connection, self._lease, "info")["info"]
                self._seconds = min(RENEW_SECONDS, max(1.0, float(info.leaseTimeout or 300) / 4))
                self._thread = threading.Thread(target=self._renew, name=f"lease {self.id}", daemon=True)
                self._thread.start()
                return info
            if state in ("error", "done"):
                raise self._failed()
            self._ended.wait(0.2)

    def urls(self, info: Any) -> list[DeviceUrl]:
        """Of the disks, in vSphere's order."""
        return [
            DeviceUrl(
                str(url.key),
                str(url.importKey or ""),
                str(url.url),
                str(url.sslThumbprint or ""),
                str(getattr(url, "sslCertificate", None) or ""),
            )
            for url in info.deviceUrl or ()
            if url.disk
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if not self._done:
            self.abort()

    def progress(self, percent: int) -> None:
        """Shown in the vSphere client with the next renewal."""
        self._percent = max(self._percent, min(percent, 99))

    def check(self) -> None:
        """Raises Cancelled when the caller wants an end, TargetUnavailable when the lease is lost."""
        self._control.check()
        if self._broken.is_set():
            raise TargetUnavailable(f"{self.about}: {self._reason}", remedy=_AGAIN)

    def told(self, error: TargetError) -> TargetError:
        """What vSphere says about the end of the lease, where a call or an upload saw no more than its `error`: that
        somebody holds the disk, or that there is no room. What may be gone the next time is TargetUnavailable."""
        gone = TargetUnavailable(f"{self.about}: its lease is gone, perhaps with its session", remedy=_AGAIN)
        if isinstance(error.__cause__, vmodl.fault.ManagedObjectNotFound):
            return gone
        try:
            if self._state() != "error":
                return error
            found = self._failed()
        except vmodl.fault.ManagedObjectNotFound:
            return gone
        except _NO_MATTER:
            return error  # nobody answers
        if isinstance(found, (TargetBusy, TargetFull, TargetUnavailable, Unsupported)):
            return found
        return TargetUnavailable(found.message, remedy=found.remedy or error.remedy)

    def received(self) -> list[Received]:
        """Empty where the platform does not tell."""
        try:
            entries = self._connection.asked(self._lease.HttpNfcLeaseGetManifest)
        except vmodl.fault.MethodNotFound:
            return []
        except (REFUSED, *CUT) as fault:
            error = explain(fault, f"{self.about}: cannot ask what the host received")
            raise self.told(error) if isinstance(error, TargetError) else error from fault
        return [
            Received(str(e.key), str(e.sha1 or "").lower(), int(e.size or 0), int(e.capacity or 0))
            for e in entries or ()
            if getattr(e, "disk", False)
        ]

    def complete(self) -> None:
        """The machine is whole. When the answer is lost the lease's state tells."""
        try:
            self._connection.order(self._lease.HttpNfcLeaseComplete, self.about)
        except TargetUnavailable as error:
            if isinstance(error.__cause__, vim.fault.NotAuthenticated):
                raise  # it had no effect, and the lease is not found because it went with its session
            try:
                if self._state() != "done":
                    raise
            except vmodl.fault.ManagedObjectNotFound:
                pass  # a lease that is done is soon forgotten; whether the machine is there is looked at next
        except TargetError as error:
            raise self.told(error) from error
        self._done = True
        self._ended.set()

    def abort(self) -> None:
        """Never fails: what is left of it ends with the lease's time."""
        try:
            self._connection.asked(lambda: self._lease.HttpNfcLeaseAbort(None))
        except _NO_MATTER:
            return

    def _state(self) -> str:
        return str(self._connection.asked(lambda: self._lease.state))

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._connection.asked(lambda: self._lease.HttpNfcLeaseProgress(self._percent))
            except REFUSED as fault:
                self._lose(explain(fault, "the lease has ended").message)
                return
            except FailbackError as error:
                self._lose(error.message)
                return
            except CUT:
                continue  # the next one may come through; if not, the lease's own end will tell

    def _lose(self, reason: str) -> None:
        self._reason = reason
        self._broken.set()

    def _failed(self) -> TargetError:
        error = values_of(self._connection, self._lease, "error").get("error")
        if error is not None:
            found = explain(error, self.about)
            return found if isinstance(found, TargetError) else TargetError(found.message, remedy=found.remedy)
        return TargetError(f"{self.about}: vSphere ended the lease and does not say why", remedy=_AGAIN)


def opened(connection: Connection, order: Callable[[], Any], control: Control, about: str) -> Lease:
    """The lease that `order` (ImportVApp) gives."""
    return Lease(connection, connection.order(order, about), control, about)
