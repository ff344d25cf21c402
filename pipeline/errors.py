"""Every error that failback raises on purpose.

FailbackError                what failed, on which object, and what the user can do
├── UsageError               the request itself is wrong (exit code 2)
├── StoreError               the object store
│   ├── NotFound             the object is proved absent
│   ├── AlreadyExists        a create-only put lost against an existing object
│   ├── AccessDenied         401, 403, a read-only directory
│   ├── StoreUnavailable     down, too slow, 5xx, cut: worth another try (transient)
│   └── StoreFull            quota or disk space of the store
├── FormatError              bytes that are not what they should be
│   ├── CorruptObject        hash, length or structure is wrong
│   │   └── Forged           whole, but written by somebody who may not
│   ├── NewerFormat          written by a later version of failback
│   └── WrongRepository      belongs to another repository
├── CatalogueError           machine or recovery point does not exist, or is void or forgotten
├── SourceError              a disk that is read
│   ├── Unreadable           an I/O error at a known offset
│   ├── SourceChanged        shrank, grew or was replaced while it was read
│   ├── SourceBusy           mounted read-write or otherwise in use
│   └── SourceUnavailable    the platform where it runs does not answer, or did not say how it ended: look again
├── TargetError              a disk that is written
│   ├── TargetFull           no space left
│   ├── TargetBusy           mounted, held, or used by another restore
│   ├── TargetMismatch       not the disk that was named (size, serial, foreign content)
│   ├── TargetUnavailable    the platform does not answer, or did not say how it ended: look again
│   ├── Unsupported          the platform cannot do that at all
│   └── LengthExceeded       a stream does not fit into the length that it was announced with
├── VerifyError              data differ from the recovery point
├── SessionHeld              another writer of the same machine is alive
├── SessionFenced            our session was fenced, or our recovery point taken by another writer
├── PlaceHeld                another command works on the same machine at the target
├── NotReady                 the preflight found errors; nothing was changed
├── BootError                the machine is built, but does not start, or ended by itself
├── AgentError               an agent: not paired, refuses an order
│   └── AgentSilent          it gives no sign of life; what it was told goes on when it does
├── RunRefused               what was asked does not fit where the run is now, or the run moved on meanwhile
├── Superseded               a later conductor, or a later change of sides, has taken over: nothing was changed
├── KeyRefused               a key is missing, wrong or not good for this; or not the repository that is known here
└── Cancelled                the caller wanted the work to end; the same call goes on
"""

from __future__ import annotations

from manifests.errors import (
    CorruptObject,
    FailbackError,
    Forged,
    FormatError,
    KeyRefused,
    NewerFormat,
    UsageError,
    WrongRepository,
)

__all__ = [
    "AccessDenied",
    "AgentError",
    "AgentSilent",
    "AlreadyExists",
    "BootError",
    "Cancelled",
    "CatalogueError",
    "CorruptObject",
    "FailbackError",
    "Forged",
    "FormatError",
    "KeyRefused",
    "LengthExceeded",
    "NewerFormat",
    "NotFound",
    "NotReady",
    "PlaceHeld",
    "RunRefused",
    "SessionFenced",
    "SessionHeld",
    "SourceBusy",
    "SourceChanged",
    "SourceError",
    "SourceUnavailable",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "Superseded",
    "TargetBusy",
    "TargetError",
    "TargetFull",
    "TargetMismatch",
    "TargetUnavailable",
    "Unreadable",
    "Unsupported",
    "UsageError",
    "VerifyError",
    "WrongRepository",
]


class StoreError(FailbackError):
    exit_code = 4
    transient = False


class NotFound(StoreError):
    pass


class AlreadyExists(StoreError):
    pass


class AccessDenied(StoreError):
    pass


class StoreUnavailable(StoreError):
    transient = True


class StoreFull(StoreError):
    pass


class CatalogueError(FailbackError):
    exit_code = 3


class SourceError(FailbackError):
    exit_code = 6


class Unreadable(SourceError):
    """An I/O error while reading; `offset` and `length` in bytes name the range that cannot be read."""

    def __init__(self, message: str, *, offset: int, length: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.offset = offset
        self.length = length


class SourceChanged(SourceError):
    pass


class SourceBusy(SourceError):
    pass


class SourceUnavailable(SourceError):
    pass


class TargetError(FailbackError):
    exit_code = 7


class TargetFull(TargetError):
    pass


class TargetBusy(TargetError):
    pass


class TargetMismatch(TargetError):
    pass


class TargetUnavailable(TargetError):
    pass


class Unsupported(TargetError):
    pass


class LengthExceeded(TargetError):
    pass


class VerifyError(FailbackError):
    exit_code = 8


class SessionHeld(FailbackError):
    exit_code = 9


class SessionFenced(FailbackError):
    exit_code = 9


class PlaceHeld(FailbackError):
    exit_code = 9


class RunRefused(FailbackError):
    exit_code = 9


class ConductedElsewhere(RunRefused):
    """Another conductor is at work on the run."""


class Superseded(FailbackError):
    exit_code = 9


class NotReady(FailbackError):
    exit_code = 11


class BootError(FailbackError):
    exit_code = 12


class AgentError(FailbackError):
    exit_code = 14


class AgentSilent(AgentError):
    pass


class Cancelled(FailbackError):
    exit_code = 130
