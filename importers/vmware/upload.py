"""One disk, sent to an ESXi host: POST of a VMDK stream to an URL of a lease.

The URL names an ESXi host, not vCenter; a `*` in it is the host that we are connected with. The host is believed when
it shows the certificate that vCenter names in the lease (SHA-1 thumbprint, or PEM since vSphere 9), whatever name is in
it. The ticket is in the URL: no cookie goes along, and no URL into a message.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol
from urllib.parse import urlsplit

from importers.vmware.connection import Connection
from importers.vmware.lease import DeviceUrl
from importers.vmware.options import VmwareOptions, split_address
from importers.vmware.proxy import Proxy
from importers.vmware.tls import authorities_context, pinned_context, show, trust_only, unreachable
from pipeline.errors import TargetError, TargetFull, TargetUnavailable

CONTENT = "application/x-vnd.vmware-streamVmdk"
IDLE_SECONDS = 120.0
"""Silence of the host while it takes bytes or thinks about them: it converts the last of them before it answers."""
_MOST = 2000
_LEASE_OVER = (401, 403, 404, 410)
"""What a ticket is answered that is no longer good. Which of them a real host gives is unverified."""


class _Line(Protocol):
    def send(self, data: bytes, /) -> None: ...


class Sent(Protocol):
    """A stream, and what is said about it. `length` None: not known beforehand."""

    @property
    def name(self) -> str: ...

    @property
    def length(self) -> int | None: ...

    def __iter__(self) -> Generator[bytes]: ...


def endpoint_of(url: str, connection: Connection, options: VmwareOptions) -> tuple[str, int]:
    """(host, port) that an upload goes to, by the mapping's `hosts`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "*":
        host = connection.host
    port = parts.port or 443
    if host in options.hosts:
        return split_address(options.hosts[host], port)
    return host, port


def send(
    stream: Sent,
    target: DeviceUrl,
    connection: Connection,
    options: VmwareOptions,
    check: Callable[[], None],
) -> None:
    """The whole stream. `check` is called after every block, and may raise.

    Raises TargetUnavailable when the line is cut (the host keeps nothing), TargetFull, TargetError for a refusal.
    """
    host, port = endpoint_of(target.url, connection, options)
    where, about = show(host, port), f"cannot upload {stream.name} to {show(host, port)}"
    parts = urlsplit(target.url)
    line = _line(host, port, _context(host, port, target, connection, options), connection.proxy)
    with closing(line):
        try:
            line.connect()
        except ssl.SSLCertVerificationError as error:
            raise TargetError(
                f"{about}: it does not show the certificate that vCenter names for it",
                remedy="something stands in between, or the host's certificate was changed and vCenter does not know "
                "yet: reconnect the host in vCenter",
            ) from error
        except OSError as error:
            raise unreachable(where, error) from error
        line.putrequest("POST", parts.path + (f"?{parts.query}" if parts.query else ""), skip_accept_encoding=True)
        line.putheader("Content-Type", CONTENT)
        line.putheader("Overwrite", "t")
        if stream.length is None:
            line.putheader("Transfer-Encoding", "chunked")
        else:
            line.putheader("Content-Length", str(stream.length))
        line.endheaders()
        cut: OSError | None = None
        with closing(iter(stream)) as blocks:
            for block in blocks:
                check()
                try:
                    _send(line, block, chunked=stream.length is None)
                except OSError as error:
                    cut = error  # the host may have said why before it closed
                    break
            else:
                if stream.length is None:
                    line.send(b"0\r\n\r\n")
        _take_answer(line, about, cut)


def _send(line: _Line, block: bytes, *, chunked: bool) -> None:
    if chunked:
        line.send(b"%x\r\n" % len(block))
    line.send(block)
    if chunked:
        line.send(b"\r\n")


def _take_answer(line: http.client.HTTPSConnection, about: str, cut: OSError | None) -> None:
    try:
        answer = line.getresponse()
        status, text = answer.status, answer.read(_MOST).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        reason = cut or error
        raise TargetUnavailable(
            f"{about}: the connection was cut ({reason.strerror or reason})"
            if isinstance(reason, OSError)
            else f"{about}: the connection was cut",
            remedy="check the network to the host, then run the same command again",
        ) from error
    if status in (200, 201) and cut is None:
        return
    said = " ".join(text.split())[:300]
    what = f"{about}: HTTP {status}{f' ({said})' if said else ''}"
    if status == 507 or "space" in said.lower():
        raise TargetFull(what, remedy="free some space in the datastore, or name another one in the mapping")
    if status in _LEASE_OVER:
        raise TargetUnavailable(
            what, remedy="its lease has ended, or a proxy before the host wants a login: look at both"
        )
    if status in (408, 429, 500, 502, 503, 504) or cut is not None:
        raise TargetUnavailable(what, remedy="look at the host's health, then run the same command again")
    raise TargetError(
        what, remedy="the host does not like the stream: look at its log (hostd), and let a worker write it"
    )


def _context(host: str, port: int, target: DeviceUrl, connection: Connection, options: VmwareOptions) -> ssl.SSLContext:
    if target.certificate:
        return trust_only(target.certificate)
    if target.thumbprint:
        return pinned_context(host, port, target.thumbprint, connection.proxy)
    if host == connection.host:
        return connection.context
    return authorities_context(options.ca)


def _line(host: str, port: int, context: ssl.SSLContext, proxy: Proxy) -> http.client.HTTPSConnection:
    if proxy.serves(host):
        line = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=IDLE_SECONDS, context=context)
        line.set_tunnel(host, port)
        return line
    return http.client.HTTPSConnection(host, port, timeout=IDLE_SECONDS, context=context)
