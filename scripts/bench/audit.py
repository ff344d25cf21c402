"""Audit: a small web server to which MinIO reports every request, for questions its counters cannot answer."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUIET = 1.0
"""Seconds without a report after which none is expected any more: the server sends them late and in bunches."""


class Audit:
    """Requests by method and key since the last `clear`. The reports cost a little CPU on both sides."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()
        self._last = time.monotonic()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Audit":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What the server has to be told when it starts."""
        endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return {"MINIO_AUDIT_WEBHOOK_ENABLE_BENCH": "on", "MINIO_AUDIT_WEBHOOK_ENDPOINT_BENCH": endpoint}

    def clear(self) -> None:
        """Forget what was reported so far, late reports included."""
        self._settle()
        self._seen.clear()

    def seen(self) -> Counter[tuple[str, str]]:
        """How often each (method, key) was asked for, such as ("GetObject", "disks/packs/ab/cdef")."""
        self._settle()
        return Counter(self._seen)

    def _settle(self) -> None:
        while time.monotonic() - self._last < QUIET:
            time.sleep(QUIET / 4)

    def _note(self, report: dict[str, dict[str, str]]) -> None:
        call = report.get("api", {})
        self._seen[call.get("name", ""), call.get("object", "")] += 1
        self._last = time.monotonic()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        note = self._note

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for line in body.splitlines():  # one report a line when the server bunches them
                    if line.strip():
                        note(json.loads(line))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: the default writes a line a request to the terminal."""

        return Handler
