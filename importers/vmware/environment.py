"""What the hosts can build: hardware versions, guest ids, and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED
from importers.vmware.inventory import Site
from importers.vmware.properties import values_of

BY_RELEASE = {(6, 0): 11, (6, 5): 13, (6, 7): 14, (7, 0): 17, (8, 0): 20, (9, 0): 22}
"""ESXi release -> newest hardware version that its first build has (VMware KB 1003746, 315655)."""
_UNREADABLE: tuple[type[Exception], ...] = (REFUSED, TypeError, AttributeError, *CUT)
"""pyvmomi raises TypeError and AttributeError for answers that lack what its types call required."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What is supported for one guest id."""

    id: str
    secure_boot: bool = False
    firmware: tuple[str, ...] = ()
    """bios, efi."""
    most_cpus: int = 0
    most_memory: int = 0
    """Bytes; 0: not told."""
    pvscsi: bool = False
    """It boots from one."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Empty: the hosts did not tell."""

    version: int = 0
    """Hardware version that was asked for, else the newest that all hosts have; 0: not known."""
    versions: tuple[int, ...] = ()
    """That machines can be made with on every usable host, ascending."""
    guests: Mapping[str, Guest] = field(default_factory=dict)
    most_cpus: int = 0
    most_memory: int = 0


def look_around(connection: Connection, site: Site, version: str = "") -> Environment:
    """Never fails for what a host does not tell: preflight then uses what is known of its release."""
    browser = values_of(connection, site.compute.object, "environmentBrowser").get("environmentBrowser")
    versions = _versions(connection, site, browser) if browser is not None else ()
    chosen = number_of(version) or max(versions, default=0)
    if browser is None or not chosen:
        return Environment(chosen, versions)
    options = _options(connection, browser, chosen)
    if options is None:
        return Environment(chosen, versions)
    guests = {guest.id: guest for guest in map(_guest, options.guestOSDescriptor or [])}
    limits = options.hardwareOptions
    return Environment(
        chosen,
        versions,
        guests,
        max(getattr(limits, "numCPU", None) or [0]),
        (getattr(getattr(limits, "memoryMB", None), "max", None) or 0) << 20,
    )


def number_of(version: str) -> int:
    """13 of vmx-13; 0 for nothing."""
    return int(version.removeprefix("vmx-")) if version else 0


def _versions(connection: Connection, site: Site, browser: Any) -> tuple[int, ...]:
    """By what the cluster says, else by the releases of its hosts."""
    try:
        told = connection.asked(browser.QueryConfigOptionDescriptor) or []
    except _UNREADABLE:
        told = []
    usable = {host.id for host in site.usable}
    found = {
        number_of(option.key)
        for option in told
        if option.createSupported is not False
        and option.key.startswith("vmx-")
        and (not option.host or usable <= {str(host._moId) for host in option.host})
    }
    if not found and site.usable:
        newest = min(_of_release(host.version) for host in site.usable)
        found = {v for v in BY_RELEASE.values() if v <= newest}
    return tuple(sorted(found))


def _of_release(version: str) -> int:
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return max((newest for release, newest in BY_RELEASE.items() if release <= parts), default=0)


def _options(connection: Connection, browser: Any, version: int) -> Any:
    query = vim.EnvironmentBrowser.ConfigOptionQuerySpec(key=f"vmx-{version}")
    try:
        return connection.asked(lambda: browser.QueryConfigOptionEx(query))
    except vmodl.fault.MethodNotFound:
        return None
    except _UNREADABLE:
        return None


def _guest(told: Any) -> Guest:
    return Guest(
        str(told.id),
        bool(getattr(told, "supportsSecureBoot", None)),
        tuple(str(name) for name in getattr(told, "supportedFirmware", None) or ()),
        int(getattr(told, "supportedMaxCPUs", None) or 0),
        int(getattr(told, "supportedMaxMemMB", None) or 0) << 20,
        bool(getattr(told, "supportsPvscsiControllerForBoot", None)),
    )
