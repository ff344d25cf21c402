"""Small services on 127.0.0.1, each ending with its `with` block."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.target import Endpoint

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(talk: Talk) -> Iterator[Endpoint]:
    """A port whose connections are each handed to `talk`, in a thread, and closed after it."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(20)
            thread = threading.Thread(target=serve, args=(connection,), daemon=True)
            threads.append(thread)
            thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        port: int = listener.getsockname()[1]
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield Endpoint("127.0.0.1", port)
        finally:
            over.set()
            thread.join()
            for thread in threads:
                thread.join(20)


def says(text: bytes) -> Talk:
    """Speaks first, then waits until the other side closes."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(text)
        connection.recv(1)

    return talk


def silent(connection: socket.socket) -> None:
    """Takes everything and says nothing."""
    while connection.recv(65536):
        pass


def closes(connection: socket.socket) -> None:
    """As a forwarder with nobody behind it."""


def answers(status: str, body: bytes = b"", seen: list[bytes] | None = None, **headers: str) -> Talk:
    """One answer of HTTP/1.1; the request is kept in `seen`."""

    def talk(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = connection.recv(65536)
            if not data:
                return
            request += data
        if seen is not None:
            seen.append(request)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        connection.sendall(head.encode() + body)

    return talk


def over_tls(talk: Talk, certificate: Path, names: list[str | None] | None = None) -> Talk:
    """The same inside TLS; the server names that are asked for are kept in `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def remember(_socket: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        if names is not None:
            names.append(name)

    context.sni_callback = remember

    def wrapped(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            talk(inner)

    return wrapped


def refusing_port() -> Endpoint:
    """Nobody listens there (and nobody is likely to before the test looks)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Endpoint("127.0.0.1", listener.getsockname()[1])
