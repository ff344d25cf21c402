"""Where a repository is, as one line of text: `s3://bucket/prefix?endpoint=https://host`, `/path`, `memory://name`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pipeline.errors import UsageError
from pipeline.store.base import is_key

FORMS = "use s3://bucket/prefix?endpoint=https://host&region=name, /path, ./path or file:///path"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+]*:")
_SECRET = ("key", "secret", "token", "password", "passwd", "credential", "signature")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket. `prefix` is empty or ends with '/'. `endpoint` empty means AWS. `path_style` None means by endpoint."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    profile: str = ""
    ca: str = ""
    checksum: str = ""

    def __str__(self) -> str:
        options = {}
        for option in _OPTIONS:
            value = getattr(self, option)
            if value not in ("", None):
                options[option] = str(value).lower() if isinstance(value, bool) else value
        query = "?" + urlencode(options, safe=":/") if options else ""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + query


@dataclass(frozen=True, slots=True)
class DirectoryAddress:
    """A directory; `path` is absolute."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class MemoryAddress:
    """A store that all of this process shares under `name`: for tests."""

    name: str

    def __str__(self) -> str:
        return f"memory://{self.name}"


Address: TypeAlias = S3Address | DirectoryAddress | MemoryAddress

_OPTIONS = tuple(field.name for field in fields(S3Address) if field.name not in ("bucket", "prefix"))


def parse_address(text: str) -> Address:
    """The address that `text` means. Raises UsageError, which never repeats a secret that `text` may hold."""
    if not text or text != text.strip() or any(ord(letter) < 32 for letter in text):
        raise UsageError("the repository's address is empty or has stray white space", remedy=FORMS)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if _SCHEME.match(text):
            raise UsageError("unknown kind of repository address", remedy=FORMS + "; ./name:x for such a directory")
        return DirectoryAddress(Path(text).expanduser().absolute())
    match scheme.lower():
        case "s3":
            return _parse_s3(text)
        case "file":
            if not rest.startswith("/") or "?" in rest or "#" in rest:
                raise UsageError("a file:// address is file:// and an absolute path", remedy=FORMS)
            return DirectoryAddress(Path(unquote(rest)))
        case "memory":
            if rest and not is_key(rest):
                raise UsageError("a memory:// address has a plain word as its name", remedy=FORMS)
            return MemoryAddress(rest)
        case "http" | "https":
            raise UsageError(
                "a repository's address does not begin with http: the server goes into endpoint=",
                remedy="use s3://bucket/prefix?endpoint=https://host",
            )
        case _:
            raise UsageError("unknown kind of repository address", remedy=FORMS)


def place_of(text: str) -> str:
    """What tells the place of an address from all others: buckets of two servers may have one name. Region, profile and
    the like are left out."""
    address = parse_address(text)
    if not isinstance(address, S3Address):
        return str(address)
    server = f" at {address.endpoint.rstrip('/').lower()}" if address.endpoint else ""
    return f"s3://{address.bucket}/{address.prefix}".rstrip("/") + server


def _parse_s3(text: str) -> S3Address:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError("not a valid s3:// address", remedy=FORMS) from None
    if "@" in parts.netloc:
        raise _refuse_secret("a user name or password before '@'")
    if port is not None or not parts.netloc:
        raise UsageError("an s3:// address names a bucket; the server goes into endpoint=", remedy=FORMS)
    if parts.fragment:
        raise UsageError("an s3:// address has no '#' part", remedy=FORMS)
    options = _parse_options(parts.query)
    prefix = unquote(parts.path).strip("/")
    if prefix and not is_key(prefix):
        raise UsageError("the prefix in the s3:// address has letters that a key cannot have", remedy=FORMS)
    path_style = options.pop("path_style", None)
    address = S3Address(
        bucket=parts.netloc,
        prefix=prefix + "/" if prefix else "",
        path_style=None if path_style is None else _parse_switch("path_style", path_style),
        **options,
    )
    _check_endpoint(address.endpoint)
    if address.checksum not in ("", "sha256", "crc64nvme"):
        raise UsageError("checksum= is sha256 or crc64nvme", remedy=FORMS)
    return address


def _parse_options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            if any(word in name.lower() for word in _SECRET):
                raise _refuse_secret(f"'{name[:40]}'")
            raise UsageError(
                f"unknown option {name[:40]!r} in the repository's address", remedy=f"known are {', '.join(_OPTIONS)}"
            )
        if name in options:
            raise UsageError(f"option {name!r} is given twice in the repository's address", remedy=FORMS)
        options[name] = value
    return options


def _parse_switch(name: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise UsageError(f"option {name!r} in the repository's address is true or false", remedy=FORMS)


def _check_endpoint(endpoint: str) -> None:
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise UsageError("endpoint= is not a valid URL", remedy=FORMS) from None
    if "@" in parts.netloc:
        raise _refuse_secret("a user name or password in endpoint=")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError("endpoint= is http:// or https:// and a host", remedy=FORMS)


def _refuse_secret(what: str) -> UsageError:
    return UsageError(
        f"the repository's address holds {what}: secrets do not belong into an address, it is shown and logged",
        remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws with profile=",
    )
