"""NBD addresses: nbd://host:port/export and nbd+unix:///export?socket=/path (NetworkBlockDevice/nbd, doc/uri.md)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.errors import UsageError
from pipeline.nbd.protocol import PORT

_EXAMPLE = "Write nbd://host:port/export or nbd+unix:///export?socket=/path/to/socket."


@dataclass(frozen=True, slots=True)
class Address:
    """Where an export is. `path` is set for a UNIX socket, `host` and `port` otherwise."""

    export: str
    host: str = ""
    port: int = PORT
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Raises UsageError."""
        try:
            parts = urlsplit(uri)
            port = parts.port or PORT
        except ValueError as error:
            raise UsageError(f"{uri}: not an NBD address: {error}", remedy=_EXAMPLE) from None
        export = unquote(parts.path.removeprefix("/"))
        if parts.scheme == "nbd" and parts.hostname:
            return cls(export, host=parts.hostname, port=port)
        if parts.scheme == "nbd+unix":
            path = parse_qs(parts.query).get("socket", [""])[0]
            if path:
                return cls(export, path=path)
        if parts.scheme in ("nbds", "nbds+unix"):
            raise UsageError(f"{uri}: NBD over TLS is not supported", remedy="Use an SSH tunnel to a UNIX socket.")
        raise UsageError(f"{uri}: not an NBD address", remedy=_EXAMPLE)

    def connect(self, timeout: float) -> socket.socket:
        """A connected socket. Raises OSError."""
        if self.path:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.settimeout(timeout)
                link.connect(self.path)
            except BaseException:
                link.close()
                raise
            return link
        link = socket.create_connection((self.host, self.port), timeout)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return link
