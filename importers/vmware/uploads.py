"""Whether disks can be uploaded: the bulk path goes to ESXi hosts directly, past vCenter.

A host is reached at its name in vCenter, or where the options' `hosts` say. Its certificate must be the one that
vCenter knows it by; leases tell the same fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from importers.vmware.connection import Connection
from importers.vmware.inventory import Host, Site
from importers.vmware.options import VmwareOptions, split_address
from importers.vmware.properties import values_of_all
from importers.vmware.proxy import Proxy
from importers.vmware.tls import colons, fetch_certificate, show
from pipeline.errors import TargetUnavailable
from pipeline.finding import Finding

TRY_SECONDS = 8.0
_AT_ONCE = 8
_REMEDY = (
    "make the host's name known to this host's DNS and open port 443 to it, or say in the options where it is "
    "reached: `hosts: {HOST: ADDRESS}`"
)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a host takes uploads, and why it does not; `trouble` empty: it does."""

    host: Host
    address: str
    trouble: str = ""


def upload_address(options: VmwareOptions, host: str, port: int = 443) -> tuple[str, int]:
    """(host, port) that an upload to a host goes to: what the options say, else what a lease or vCenter call it."""
    said = options.hosts.get(host)
    return split_address(said, port) if said else (host, port)


def try_doors(connection: Connection, options: VmwareOptions, site: Site) -> list[Door]:
    """Each usable host's, tried side by side: name, connection, handshake, certificate."""
    hosts = list(site.usable)
    told = values_of_all(connection, [host.object for host in hosts], "summary.config.sslThumbprint")
    prints = [str(values.get("summary.config.sslThumbprint", "")) for values in told]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="door") as pool:
        return list(pool.map(lambda pair: _try(pair[0], pair[1], options, connection), zip(hosts, prints, strict=True)))


def findings_of(doors: Sequence[Door], *, worker: bool) -> list[Finding]:
    """With a worker, or when some hosts can be reached, uploads still have a way."""
    shut = [door for door in doors if door.trouble]
    ways = worker or len(shut) < len(doors)
    return [
        Finding(
            "warning" if ways else "error",
            f"host {door.host.name}",
            f"nothing can be uploaded to it: {door.trouble}",
            _REMEDY,
        )
        for door in shut
    ]


def _try(host: Host, fingerprint: str, options: VmwareOptions, connection: Connection) -> Door:
    # A single host is the one that we talk to, whatever it calls itself.
    address, port = upload_address(options, host.name)
    if not connection.is_vcenter and host.name not in options.hosts:
        address, port = split_address(options.address or "")
    shown = show(address, port)
    try:
        seen = fetch_certificate(address, port, Proxy.of(options), TRY_SECONDS)
    except TargetUnavailable as error:
        return Door(host, shown, error.message)
    wanted = fingerprint.replace(":", "").lower()
    if wanted and wanted not in (hashlib.sha1(seen).hexdigest(), hashlib.sha256(seen).hexdigest()):
        seen_print = colons(hashlib.sha1(seen).hexdigest())
        return Door(host, shown, f"{shown} shows the certificate SHA1:{seen_print}, vCenter knows it by {fingerprint}")
    return Door(host, shown)
