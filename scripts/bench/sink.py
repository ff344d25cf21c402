"""Sink: a host that takes uploads over TLS and throws them away, at a given rate or as fast as it can."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

from scripts.bench.tool import ROOT

ADDRESS = "127.0.0.1"
_BUFFER = 256 << 10
"""Bytes that the limited link holds, so that what is measured is the link and not a buffer."""
_CREDIT = 0.02
"""Seconds of the rate that were not used and may be made up for."""


@dataclass(frozen=True)
class Received:
    """One upload, from its first byte to its last. Bytes and seconds."""

    length: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.length / self.seconds


class Sink:
    """Runs as a process of its own; `certificate` is what a client has to trust."""

    def __init__(self, folder: Path, *, limit: int = 0) -> None:
        self._folder, self._limit = folder, limit
        self.certificate = folder / "sink.pem"

    def __enter__(self) -> "Sink":
        _self_signed(self.certificate)
        leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*leash, sys.executable, "-m", "scripts.bench.sink", self.certificate, str(self._limit)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self.port = int(self._answer())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def received(self) -> Received:
        """The next upload, when it has ended."""
        return Received(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the sink ended with {self._process.wait()}")
        return line


def main() -> None:
    """`CERTIFICATE LIMIT`: prints the port, then a line of JSON for each upload."""
    limit = int(sys.argv[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    handler = type("Handler", (_Handler,), {"limit": limit})
    with HTTPServer((ADDRESS, 0), handler) as server:
        if limit:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        print(server.server_port, flush=True)
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    limit = 0

    def do_POST(self) -> None:
        begin, length, due = 0.0, 0, 0.0
        for count in self._body():
            now = time.perf_counter()
            if not length:
                begin = due = now
            length += count
            if self.limit:
                due = max(due, now - _CREDIT) + count / self.limit
                time.sleep(max(due - now, 0))
        print(json.dumps({"length": length, "seconds": time.perf_counter() - begin}), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self) -> Iterator[int]:
        if "Content-Length" in self.headers:
            yield from self._take(int(self.headers["Content-Length"]))
            return
        while size := int(self.rfile.readline(), 16):
            yield from self._take(size)
            self.rfile.readline()
        self.rfile.readline()

    def _take(self, length: int) -> Iterator[int]:
        buffer = memoryview(bytearray(1 << 20))
        while length:
            count = self.rfile.readinto1(buffer[: min(length, len(buffer))])
            if not count:
                raise EOFError(f"{length} bytes are missing")
            length -= count
            yield count

    def log_message(self, format: str, *args: object) -> None:
        """Standard output is for figures."""


def _self_signed(path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(ADDRESS))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
