"""A little S3 on 127.0.0.1 that answers what the test says: errors, cuts, silence, a wrong clock, lost answers."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    target: str = ""
    """Path and query as they were sent."""


@dataclass
class Answer:
    """What goes back. `cut`: close without an answer; `short`: close after that many bytes; `hang`: seconds of silence.

    `after`: act on the request (store the object) first, so that only the answer is lost.
    """

    status: int = 200
    code: str = ""
    message: str = "because"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    short: int | None = None
    hang: float = 0
    after: bool = False


@dataclass
class ScriptedS3:
    """`script` is asked first; None means: behave like S3 with the objects in `objects`."""

    endpoint: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    script: Callable[[Request], Answer | None] = lambda request: None
    clock_ahead: timedelta = timedelta(0)
    ranges: bool = True
    closing: threading.Event = field(default_factory=threading.Event)

    def answer_always(self, answer: Answer) -> None:
        self.script = lambda request: answer

    def answer(self, request: Request) -> Answer:
        wanted = self.script(request)
        if wanted is not None and not wanted.after:
            return wanted
        natural = self._act(request)
        return natural if wanted is None else wanted

    def _act(self, request: Request) -> Answer:
        key = unquote(request.path).lstrip("/").partition("/")[2]
        modified = {"last-modified": format_datetime(datetime.now(UTC) + self.clock_ahead, usegmt=True), "etag": '"1"'}
        match request.method:
            case "PUT":
                if key in self.objects and request.headers.get("if-none-match") == "*":
                    return Answer(412, "PreconditionFailed")
                self.objects[key] = request.body
                return Answer(headers={"etag": '"1"'})
            case "GET" | "HEAD" if key:
                if key not in self.objects:
                    return Answer(404, "NoSuchKey")
                body = self.objects[key]
                wanted = request.headers.get("range", "")
                if not self.ranges or not wanted.startswith("bytes="):
                    return Answer(body=body, headers=modified)
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = body[int(first) : int(last) + 1]
                if not part:
                    return Answer(416, "InvalidRange")
                whole = f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}"
                return Answer(206, body=part, headers={**modified, "content-range": whole})
            case _:
                return Answer(501, "NotImplemented")


@contextmanager
def scripted_s3(tls: ssl.SSLContext | None = None, state: ScriptedS3 | None = None) -> Iterator[ScriptedS3]:
    state = state or ScriptedS3()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(parts.query, keep_blank_values=True)
            request = Request(self.command, parts.path, query, headers, body, self.path)
            state.requests.append(request)
            self._send(state.answer(request))

        def _send(self, answer: Answer) -> None:
            if answer.hang:
                state.closing.wait(answer.hang)
            if answer.cut or answer.hang:
                self.close_connection = True
                return
            body = answer.body
            if answer.code:
                body = f"<Error><Code>{answer.code}</Code><Message>{answer.message}</Message></Error>".encode()
            self.send_response(answer.status)
            for name, value in {"content-length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if answer.short is None else body[: answer.short])
            if answer.short is not None:
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
