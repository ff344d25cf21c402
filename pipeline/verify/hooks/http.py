"""`http` and `https`: a web server answers as it should, under the right name."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from manifests.machine import Model
from pipeline.errors import UsageError
from pipeline.target import Endpoint
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, passed
from pipeline.verify.hooks.endpoint import at, endpoint_of, what_failed
from pipeline.verify.hooks.text import Regex, decoded, quoted, search
from pipeline.verify.process import without
from pipeline.verify.short import port_number
from pipeline.verify.subject import Subject

BODY_BYTES = 1 << 20
"""Of an answer that are read."""
_STATUSES = re.compile(r"[1-5]\d\d(,[1-5]\d\d)*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2: the name of a header."""

Status = Annotated[int, Field(ge=100, le=599)]


def _statuses(value: object) -> object:
    if isinstance(value, int):
        return (value,)
    return value.split(",") if isinstance(value, str) else value


class HttpSettings(Model):
    port: int = Field(ge=1, le=65535)
    tls: bool = False
    host: str = Field(default="", pattern=r"^[A-Za-z0-9._:-]*$")
    """Name that is asked for (`Host`, and for TLS the server name) and that the certificate must bear, whatever the
    address the connection goes to. Without TLS it may be empty: then it is the machine's address."""
    path: str = Field(default="/", pattern=r"^/[!-~]*$")
    method: str = Field(default="GET", pattern=r"^[A-Z]+$")
    status: Annotated[tuple[Status, ...], BeforeValidator(_statuses)] = ()
    """Any of these. None: any from 200 to 299."""
    text: str | None = None
    """Found in the body."""
    regex: Regex | None = None
    """Found in the body."""
    headers: dict[str, Regex] = Field(default_factory=dict)
    """Headers of the answer; each is found in its value."""
    send: dict[str, str] = Field(default_factory=dict)
    """Headers of the request."""
    send_secret: dict[str, str] = Field(default_factory=dict)
    """Headers of the request whose value is in an environment variable, by its name."""
    ca: Path | None = None
    """File of authorities that are trusted instead of this host's."""
    certificate: bool = True
    """False: any certificate will do."""

    @model_validator(mode="after")
    def _consistent(self) -> HttpSettings:
        if self.tls and self.certificate and not self.host:
            raise ValueError("`host` is missing: the name that the certificate must bear (or `certificate: false`)")
        if not self.tls and (self.ca or not self.certificate):
            raise ValueError("`ca` and `certificate` are for TLS: use the hook `https`")
        if self.ca is not None and not self.ca.is_file():
            raise ValueError(f"ca: {self.ca} is not a file")
        for name in (*self.headers, *self.send, *self.send_secret):
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header")
        if any(name.lower() == "host" for name in (*self.send, *self.send_secret)):
            raise ValueError("send: for `Host` there is `host`")
        if any("\r" in value or "\n" in value for value in self.send.values()):
            raise ValueError("send: a header has one line")
        return self


class HttpsSettings(HttpSettings):
    port: int = Field(default=443, ge=1, le=65535)
    tls: bool = True


class HttpHook(Hook[HttpSettings]):
    """One request; redirects are not followed."""

    Settings = HttpSettings
    form = "http:[HOST@]PORT[/PATH][=STATUS[,STATUS]], for example http:80/health=200"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        before, sign, status = rest.rpartition("=")
        # A query has `=`, too; what follows the last one is a status only if it looks like one.
        if sign and _STATUSES.fullmatch(status):
            rest, found["status"] = before, status
        where, slash, path = rest.partition("/")
        host, sign, port = where.rpartition("@")
        if sign and not host:
            raise ValueError("the host is empty")
        return found | {"port": port_number(port), "path": slash + path or "/"} | ({"host": host} if host else {})

    def ports(self) -> tuple[int, ...]:
        return (self.settings.port,)

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        endpoint = endpoint_of(subject, self.settings.port)
        if isinstance(endpoint, Outcome):
            return endpoint
        where = at(endpoint, self.settings.port)
        secrets = self._secrets()
        try:
            answer, body = self._ask(endpoint, attempt, secrets)
        except ssl.SSLCertVerificationError as error:
            return failed(f"the certificate of {where} is refused: {error.verify_message}")
        except ssl.SSLError as error:
            return failed(f"no TLS with {where}: {error.reason or error}")
        except http.client.HTTPException as error:
            return failed(f"{where} does not speak HTTP, or broke off: {type(error).__name__} {error}".strip())
        except OSError as error:
            return failed(f"{what_failed(error)} by {where}")
        outcome = self._judge(answer, body)
        return replace(outcome, seen=without(outcome.seen, secrets.values()))

    def _secrets(self) -> dict[str, str]:
        for header, variable in self.settings.send_secret.items():
            if variable not in os.environ:
                raise UsageError(
                    f"header {header}: the environment variable {variable} is not set",
                    remedy=f"export {variable}=... first",
                )
        return {header: os.environ[variable] for header, variable in self.settings.send_secret.items()}

    def _ask(
        self, endpoint: Endpoint, attempt: Attempt, secrets: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        settings = self.settings
        connection = _Connection(endpoint, settings, attempt.seconds)
        try:
            connection.connect()
            with _bounded(connection.sock, attempt.seconds):
                connection.secure()
                headers = {"User-Agent": "failback", "Accept": "*/*", "Connection": "close", **settings.send, **secrets}
                connection.request(settings.method, settings.path, headers={"Host": self._host(endpoint), **headers})
                try:
                    answer = connection.getresponse()
                    return answer, answer.read(BODY_BYTES)
                except ValueError as error:
                    raise http.client.HTTPException("a part of the answer has an impossible length") from error
        finally:
            connection.close()

    def _host(self, endpoint: Endpoint) -> str:
        name = self.settings.host or endpoint.host
        name = f"[{name}]" if ":" in name else name
        usual = 443 if self.settings.tls else 80
        return name if self.settings.port == usual else f"{name}:{self.settings.port}"

    def _judge(self, answer: http.client.HTTPResponse, body: bytes) -> Outcome:
        settings, text = self.settings, decoded(body)
        to = f" to {quoted(answer.headers['Location'])}" if answer.headers["Location"] else ""
        seen = f"HTTP {answer.status}{to} {quoted(text)}"
        right = answer.status in settings.status if settings.status else 200 <= answer.status < 300
        if not right:
            expected = " or ".join(map(str, settings.status)) or "200 to 299"
            return failed(f"{seen} (expected {expected})")
        if settings.text is not None and settings.text not in text:
            return failed(f"{seen} (expected {quoted(settings.text)} in it)")
        if settings.regex is not None and search(settings.regex, text) is None:
            return failed(f"{seen} (expected {settings.regex!r} in it)")
        for name, pattern in settings.headers.items():
            value = answer.headers[name]
            if value is None or search(pattern, value) is None:
                has = "no such header" if value is None else quoted(value)
                return failed(f"HTTP {answer.status}, header {name}: {has} (expected {pattern!r})")
        name = f", certificate for {settings.host}" if settings.tls and settings.certificate else ""
        return passed(f"{seen}{name}")


class HttpsHook(HttpHook):
    """The same over TLS; the certificate is checked against `host`."""

    Settings = HttpsSettings
    form = "https:HOST@PORT[/PATH][=STATUS[,STATUS]], for example https:shop.example.com@443/health=200"


class _Connection(http.client.HTTPConnection):
    """To an endpoint, in the name of another host."""

    sock: socket.socket

    def __init__(self, endpoint: Endpoint, settings: HttpSettings, seconds: float) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=seconds)
        self._settings = settings

    def secure(self) -> None:
        """TLS, if it is asked for; the socket is connected."""
        settings = self._settings
        if not settings.tls:
            return
        context = ssl.create_default_context(cafile=settings.ca)
        if not settings.certificate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=settings.host or None)


@contextmanager
def _bounded(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Ends the connection when its time is over: time limits of sockets begin anew with each byte."""
    over = threading.Event()
    # A second handle: TLS takes the first one away.
    twin = connection.dup()

    def end() -> None:
        over.set()
        with suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if over.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        twin.close()
    if over.is_set():
        raise TimeoutError
