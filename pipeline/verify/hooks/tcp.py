"""`tcp`: a port takes connections, and says what it should."""

from __future__ import annotations

import socket
import time
from typing import Any

from pydantic import Field

from manifests.machine import Model
from pipeline.target import Endpoint
from pipeline.verify.duration import Seconds
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, passed
from pipeline.verify.hooks.endpoint import at, endpoint_of, what_failed
from pipeline.verify.hooks.text import Regex, decoded, quoted, search
from pipeline.verify.short import port_number
from pipeline.verify.subject import Subject

BANNER_BYTES = 4096
POLL_SECONDS = 0.5


class TcpSettings(Model):
    port: int = Field(ge=1, le=65535)
    banner: Regex | None = None
    """What the service says by itself, as SSH, SMTP, FTP and MySQL do."""
    stays: Seconds = 0.5
    """So long a connection must stay open. A forwarder takes connections and closes them when nobody listens behind."""


class TcpHook(Hook[TcpSettings]):
    """Passed when the guest itself has taken the connection, which stays open, and the banner is right if one is asked
    for.

    Behind an endpoint that is relayed, a taken connection proves nothing. Then either the service says something, or
    the platform confirms that the guest has taken it; otherwise the attempt fails.
    """

    Settings = TcpSettings
    form = "tcp:PORT or tcp:PORT:BANNER (a regular expression), for example tcp:22:^SSH-2.0"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        port, sign, banner = rest.partition(":")
        if sign and not banner:
            raise ValueError("the banner is empty")
        return {"port": port_number(port)} | ({"banner": banner} if sign else {})

    def ports(self) -> tuple[int, ...]:
        return (self.settings.port,)

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        endpoint = endpoint_of(subject, self.settings.port)
        if isinstance(endpoint, Outcome):
            return endpoint
        where = at(endpoint, self.settings.port)
        end = time.monotonic() + attempt.seconds
        try:
            with socket.create_connection((endpoint.host, endpoint.port), attempt.seconds) as connection:
                return self._judge(subject, attempt, endpoint, connection, end)
        except OSError as error:
            return failed(f"{what_failed(error)} by {where}")

    def _judge(
        self, subject: Subject, attempt: Attempt, endpoint: Endpoint, connection: socket.socket, end: float
    ) -> Outcome:
        where = at(endpoint, self.settings.port)
        open_until = min(time.monotonic() + self.settings.stays, end)
        said = b""
        while not attempt.cancelled.is_set():
            now = time.monotonic()
            banner = self.settings.banner
            if banner is not None and search(banner, decoded(said)):
                return passed(f"{where} says {quoted(decoded(said).strip())}")
            if banner is None and now >= open_until:
                if not endpoint.relayed or said:
                    return passed(f"{where} takes connections" + (f" and says {quoted(decoded(said))}" if said else ""))
                accepted = subject.accepted(self.settings.port)
                if accepted:
                    return passed(f"{where} takes connections, and so does the guest behind it")
                if accepted is None:
                    return failed(
                        f"{where} takes connections in the guest's stead and nothing is said: no proof; expect a "
                        f"banner, or use http, ssh or exec"
                    )
            if now >= end:
                break
            connection.settimeout(min(POLL_SECONDS, max(0.01, (open_until if now < open_until else end) - now)))
            try:
                data = connection.recv(BANNER_BYTES)
            except TimeoutError:
                continue
            said = (said + data)[-BANNER_BYTES:]
            if not data:
                return self._closed(where, said)
        if self.settings.banner is None:
            return failed(f"{where} takes connections in the guest's stead; the guest has not taken one")
        return failed(f"{where} says {quoted(decoded(said))}, expected {self.settings.banner!r}")

    def _closed(self, where: str, said: bytes) -> Outcome:
        text = decoded(said)
        if self.settings.banner is not None and search(self.settings.banner, text):
            return passed(f"{where} says {quoted(text.strip())}")
        if said and self.settings.banner is None:
            return passed(f"{where} says {quoted(text.strip())} and closes")
        return failed(f"{where} took the connection and closed it" + (f" after saying {quoted(text)}" if said else ""))
