"""A real S3 server seen through a bad line: requests reach it, unless the script says otherwise.

    with proxied(minio) as line:
        line.script = lambda request: Answer(cut=True, after=True) if request.method == "PUT" else None

What is not touched passes as it is, signatures included (they cover the host that the client named). With `clock_ahead`
the server's clock is another one wherever it shows: in headers and in listings.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from servers import Server
from store.scripted_s3 import Answer, Request, ScriptedS3, scripted_s3

_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")
_LISTED = re.compile(rb"<LastModified>([^<]+)</LastModified>")


@dataclass
class Line(ScriptedS3):
    """Where the client connects: `endpoint`; where requests go: `backend`."""

    backend: str = ""

    def answer(self, request: Request) -> Answer:
        """Like its parent's; an answer that is `short` and comes `after` acting is the real one, cut there."""
        wanted = self.script(request)
        if wanted is None or not (wanted.after and wanted.short is not None):
            return self._act(request) if wanted is None else self._instead(request, wanted)
        return replace(self._act(request), short=wanted.short)

    def _instead(self, request: Request, wanted: Answer) -> Answer:
        if wanted.after:
            self._act(request)
        return wanted

    def _act(self, request: Request) -> Answer:
        connection = HTTPConnection(urlsplit(self.backend).netloc, timeout=30)
        try:
            headers = {k: v for k, v in request.headers.items() if k not in _HOP}
            connection.request(request.method, request.target, body=request.body or None, headers=headers)
            response = connection.getresponse()
            body = response.read()
            kept = {k.lower(): v for k, v in response.getheaders() if k.lower() not in _HOP}
            if request.method == "HEAD":
                kept["content-length"] = response.headers["content-length"] or "0"
            return self._shifted(Answer(response.status, body=body, headers=kept))
        except (OSError, HTTPException):
            return Answer(cut=True)
        finally:
            connection.close()

    def _shifted(self, answer: Answer) -> Answer:
        if not self.clock_ahead:
            return answer
        for name in ("date", "last-modified"):
            if name in answer.headers:
                moved = parsedate_to_datetime(answer.headers[name]) + self.clock_ahead
                answer.headers[name] = format_datetime(moved, usegmt=True)
        answer.body = _LISTED.sub(self._listed, answer.body)
        return answer

    def _listed(self, found: re.Match[bytes]) -> bytes:
        moved = datetime.fromisoformat(found[1].decode().replace("Z", "+00:00")) + self.clock_ahead
        return b"<LastModified>%s</LastModified>" % moved.strftime("%Y-%m-%dT%H:%M:%S.000Z").encode()


@contextmanager
def proxied(server: Server, clock_ahead: timedelta = timedelta(0)) -> Iterator[tuple[Server, Line]]:
    """The server as it is seen through the line, and the line."""
    line = Line(backend=server.endpoint, clock_ahead=clock_ahead)
    with scripted_s3(state=line) as opened:
        assert opened is line
        yield replace(server, endpoint=line.endpoint), line


def first_time(*, what: Callable[[Request], bool], answer: Answer) -> Callable[[Request], Answer | None]:
    """A script: each different request that `what` accepts gets `answer` once, and then passes."""
    seen: set[tuple[str, str]] = set()
    lock = threading.Lock()

    def script(request: Request) -> Answer | None:
        if not what(request):
            return None
        with lock:
            key = (request.method, request.target)
            if key in seen:
                return None
            seen.add(key)
        return answer

    return script
