"""Settings: from `FAILBACK_*` in the environment, else from a configuration file, else the defaults.

Read by hand into a dataclass: pydantic-settings takes 200 ms to import, and every command would pay for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

PREFIX = "FAILBACK_"
SYSTEM_FILE = Path("/etc/failback/failback.toml")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?(?:/s)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`/var/lib/failback` for root, else `failback` below XDG_STATE_HOME (`~/.local/state`)."""
    if home := environ.get("XDG_STATE_HOME"):
        return Path(home) / "failback"
    if os.geteuid() == 0:
        return Path("/var/lib/failback")
    return Path.home() / ".local" / "state" / "failback"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may set. Each field is a key of the configuration file and, in capitals, `FAILBACK_<FIELD>`."""

    repository: str = ""
    """Address of the repository: see `pipeline.store.address`."""
    state_dir: Path = field(default_factory=default_state_dir)
    """Journals, locks and caches of this machine. Losing it loses time, never data."""
    memory_mib: int = 256
    """Upper bound on block data held in memory, in MiB."""
    parallel: int = 16
    """Requests to the store at a time."""
    upload_limit: float = 0
    """Bytes a second to the store, 0 for no limit. In text `20M` is 20 MiB a second."""
    download_limit: float = 0
    """Bytes a second from the store, 0 for no limit."""
    request_limit: float = 0
    """Requests a second to the store, 0 for no limit."""
    log_file: Path | None = None
    key_file: Path | None = None
    """Opens an encrypted repository."""
    passphrase_file: Path | None = None
    """A file whose first line opens an encrypted repository."""
    key_command: str = ""
    """A program that opens an encrypted repository: see `pipeline.keys.locks.Command`."""
    repository_id: str = ""
    """The id the repository must have."""
    key_fingerprint: str = ""
    """The fingerprint its keys must have."""
    connect_timeout: float = 10
    """Seconds to reach the store."""
    request_timeout: float = 300
    """Seconds for one whole request. An object has up to 8 MiB, times `parallel` on a slow line."""
    stall_timeout: float = 60
    """Seconds of silence while an answer is read."""
    retry_deadline: float = 900
    """Seconds after which an operation that only met transient errors gives up."""


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises UsageError that names the file or variable and the key.

    `FAILBACK_CONFIG` names the one file to read. Without it the system's and then the user's file are read where they
    exist; the user's wins. The environment wins over files.
    """
    values: dict[str, Any] = {"state_dir": default_state_dir(environ)}
    for path in _files(environ):
        values.update(_read_file(path))
    for name, parse in _PARSERS.items():
        variable = PREFIX + name.upper()
        if text := environ.get(variable, ""):
            values[name] = _parsed(parse, text, name, variable)
    return Settings(**values)


def _files(environ: Mapping[str, str]) -> list[Path]:
    if named := environ.get(PREFIX + "CONFIG", ""):
        path = Path(named).expanduser()
        if not path.is_file():
            raise UsageError(f"{PREFIX}CONFIG names {path}, which is not a file", remedy="correct or unset it")
        return [path]
    user = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "failback" / "failback.toml"
    return [path for path in (SYSTEM_FILE, user) if path.is_file()]


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", remedy="correct the file") from None
    for name in found:
        if name not in _PARSERS:
            raise UsageError(f"{path} has the unknown key {name!r}", remedy=f"known are {', '.join(_PARSERS)}")
    return {name: _parsed(_PARSERS[name], value, name, str(path)) for name, value in found.items()}


def _parsed(parse: Callable[[Any], Any], value: object, name: str, where: str) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise UsageError(f"{name} in {where} {error}", remedy=f"correct {name}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    return value


def _digits(value: object) -> str:
    text = _text(value).strip().lower()
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise ValueError("is not 32 hexadecimal digits")
    return text


def _path(value: object) -> Path:
    path = Path(_text(value)).expanduser()
    if not path.is_absolute():
        raise ValueError("is not an absolute path")
    return path


def _number(value: object) -> float:
    """Of a file a number, of the environment its text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("is not a number")
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"is not a number: {value!r}") from None


def _count(least: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        number = _number(value)
        if not least <= number < 2**53 or number != int(number):
            raise ValueError(f"is not a whole number of at least {least}")
        return int(number)

    return parse


def _seconds(value: object) -> float:
    number = _number(value)
    if not 0 < number < 1e7:
        raise ValueError("is not a positive number of seconds")
    return number


def bytes_of(text: str) -> float:
    """Bytes of a text such as 20M or 1.5 GiB. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"is not a number of bytes a second such as 20M: {text!r}")
    return float(found.group(1)) * _UNITS[found.group(2).upper()]


def _rate(value: object) -> float:
    number = bytes_of(value) if isinstance(value, str) else _number(value)
    if number and not 1 <= number < 1e15:
        raise ValueError("is not a number of bytes a second, at least 1 (0: no limit)")
    return number


def _frequency(value: object) -> float:
    number = _number(value)
    if number and not 1e-3 <= number < 1e9:
        raise ValueError("is not a number of requests a second, at least 0.001 (0: no limit)")
    return number


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "repository": _text,
    "state_dir": _path,
    "memory_mib": _count(32),
    "parallel": _count(1),
    "upload_limit": _rate,
    "download_limit": _rate,
    "request_limit": _frequency,
    "log_file": _path,
    "key_file": _path,
    "passphrase_file": _path,
    "key_command": _text,
    "repository_id": _digits,
    "key_fingerprint": _digits,
    "connect_timeout": _seconds,
    "request_timeout": _seconds,
    "stall_timeout": _seconds,
    "retry_deadline": _seconds,
}
