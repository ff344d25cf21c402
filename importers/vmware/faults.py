"""vSphere's faults as errors that name the object and what can be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from pipeline.errors import (
    FailbackError,
    TargetBusy,
    TargetError,
    TargetFull,
    TargetMismatch,
    TargetUnavailable,
    Unsupported,
)

Kind = type[TargetError]
CUT: tuple[type[Exception], ...] = (OSError, HTTPException, ExpatError)
"""What pyvmomi raises when an answer did not come, or came cut short."""
REFUSED: type[Exception] = vmodl.MethodFault
"""What every answer that is a fault is."""
_SPACE = "free some there, or name another datastore in the mapping (`storage`, `datastore`)"
_HELD = "see which task, backup job or machine holds it, wait for that or end it, then run the same command again"
_LOCKED = "failed to lock the file"
"""A host's words for a disk that another machine has; they come in a fault of no particular kind (unverified)."""
_AGAIN = "run the same command again: it looks for what is there before it makes anything"
_LICENCE = "assign a licence that allows changes through the API (the free one of ESXi does not)"

_TABLE: tuple[tuple[type[Any], Kind, Callable[[Any], str], str], ...] = (
    # Single kinds before what they are kinds of.
    (vmodl.fault.ManagedObjectNotFound, TargetMismatch, lambda f: "it is gone", _AGAIN),
    (vim.fault.NotAuthenticated, TargetUnavailable, lambda f: "the session has ended", _AGAIN),
    (vim.fault.NoPermission, TargetError, lambda f: f"the right {f.privilegeId} is missing{_on(f.object)}",
     "give the user a role with it on that object; `failback doctor --to vmware` lists all that are needed"),
    (vim.fault.InvalidLogin, TargetError, lambda f: "user or password is wrong",
     "correct `user` and where `password` is found; a domain belongs to the user's name (user@vsphere.local)"),
    (vim.fault.NoDiskSpace, TargetFull, lambda f: f"the datastore {f.datastore} is full", _SPACE),
    (vim.fault.InsufficientStorageSpace, TargetFull, lambda f: "there is too little space", _SPACE),
    (vim.fault.RestrictedVersion, Unsupported, lambda f: "the host's licence makes the API read-only", _LICENCE),
    (vim.fault.LicenseExpired, Unsupported, lambda f: "the licence has ended", _LICENCE),
    (vim.fault.DuplicateName, TargetBusy, lambda f: f"there is another object called {f.name}",
     "give the machine another `name` or `folder` in the mapping"),
    (vim.fault.FileLocked, TargetBusy, lambda f: f"{f.file} is locked: another machine or a backup uses it", _HELD),
    (vim.fault.FileAlreadyExists, TargetBusy, lambda f: f"{f.file} exists already",
     "it belongs to something else, or a machine that was removed left it: look, and take it away by hand"),
    (vim.fault.FileNotFound, TargetMismatch, lambda f: f"{f.file} is not there", _AGAIN),
    (vim.fault.InvalidPowerState, TargetBusy,
     lambda f: f"it is {_power(f.existingState)}",
     "somebody switched it; look at it, then run the same command again"),
    (vim.fault.TaskInProgress, TargetBusy, lambda f: "another task works on it", _HELD),
    (vim.fault.ConcurrentAccess, TargetBusy, lambda f: "somebody else changed it in the same moment", _AGAIN),
    (vim.fault.ResourceInUse, TargetBusy, lambda f: f"{f.name or 'it'} is in use", _HELD),
    (vim.fault.InsufficientResourcesFault, TargetFull, lambda f: _said(f, "CPU or memory is used up"),
     "free some there, or name another `cluster`, `host` or `pool` in the mapping"),
    (vim.fault.InvalidHostConnectionState, TargetUnavailable, lambda f: "its host is not connected",
     "bring the host back, or name another one in the mapping, then run the same command again"),
    (vim.fault.Timedout, TargetUnavailable, lambda f: "vSphere gave up waiting", _AGAIN),
    (vim.fault.InvalidDatastore, TargetError, lambda f: _said(f, "the datastore cannot be used"),
     "see that the host sees the datastore, or name another one in the mapping"),
    (vim.fault.InvalidName, TargetError, lambda f: f"{f.name!r} is no name that vSphere takes",
     "give the machine another `name` in the mapping"),
    (vim.fault.InvalidDeviceSpec, TargetError, lambda f: f"vSphere refuses device {f.deviceIndex} ({f.property})",
     "another `bus`, adapter `model` or `version` in the mapping may help"),
    (vim.fault.DisallowedOperationOnFailoverHost, TargetError, lambda f: "its host is kept for failover",
     "name another host in the mapping"),
    (vim.fault.MissingNetworkIpConfig, TargetError, lambda f: _said(f, "the network is not set up"), "correct it"),
    (vmodl.fault.NotEnoughLicenses, Unsupported, lambda f: _said(f, "no licence is left for it"), _LICENCE),
    (vim.fault.HostAccessRestrictedToManagementServer, Unsupported,
     lambda f: f"the host is managed by the vCenter {f.managementServer}, which alone may change it",
     "name that vCenter as `address` in the mapping"),
    (vmodl.fault.NotSupported, Unsupported, lambda f: _said(f, "the platform cannot do that"),
     "look for what is special about it in the vSphere client"),
    (vmodl.fault.MethodNotFound, Unsupported, lambda f: f"this version of vSphere has no {f.method}", "update it"),
    (vmodl.fault.InvalidArgument, TargetError, lambda f: _said(f, f"it refuses the value of {f.invalidProperty}"),
     "correct that in the mapping; if it is not there, this is a fault of failback"),
    (vmodl.fault.HostCommunication, TargetUnavailable, lambda f: "vCenter lost its host", _AGAIN),
    (vmodl.fault.RequestCanceled, TargetError, lambda f: "somebody cancelled it", _AGAIN),
)  # fmt: skip


def explain(fault: BaseException, about: str) -> FailbackError:
    """The error for what pyvmomi raised, or for a task's error. `about`: what was being done, on which object, as in
    "cannot create the machine web-1"."""
    if isinstance(fault, FailbackError):
        return fault
    if isinstance(fault, CUT):
        reason = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
        if type(fault) is HTTPException:  # pyvmomi's for an HTTP status that is none of SOAP
            return TargetUnavailable(f"{about}: the server, or a proxy before it, answers {reason}", remedy=_AGAIN)
        return TargetUnavailable(f"{about}: the connection was cut ({reason})", remedy=_AGAIN)
    if isinstance(fault, vim.fault.GenericVmConfigFault) and _LOCKED in _said(fault, "").lower():
        return TargetBusy(f"{about}: {_said(fault, '')}", remedy=_HELD)
    for kind, error, message, remedy in _TABLE:
        if isinstance(fault, kind):
            return error(f"{about}: {message(fault)}", remedy=remedy)
    return TargetError(
        f"{about}: {_said(fault, 'vSphere refuses it')} ({type(fault).__name__.rpartition('.')[2]})",
        remedy="look at the task in the vSphere client, mend it, then run the same command again",
    )


@contextmanager
def explained(about: str) -> Iterator[None]:
    """Faults inside leave as errors about this."""
    try:
        yield
    except (REFUSED, *CUT) as fault:
        raise explain(fault, about) from fault


def _said(fault: Any, otherwise: str) -> str:
    """vSphere's own words, if there are any: the fault's text, then its details, one line."""
    texts = [getattr(fault, "msg", "") or ""]
    texts += [getattr(detail, "message", "") or "" for detail in getattr(fault, "faultMessage", None) or []]
    words = "; ".join(dict.fromkeys(" ".join(text.split()).rstrip(".") for text in texts if text.strip()))
    return words[:400] or otherwise


def _power(state: object) -> str:
    return {"poweredOn": "on", "poweredOff": "off"}.get(str(state), str(state))


def _on(entity: Any) -> str:
    return f" on {entity._moId}" if entity is not None else ""
