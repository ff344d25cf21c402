"""No secrets in plans: everybody who may read the repository reads them, and versions are kept for ever."""

from __future__ import annotations

import re
from typing import Any

from pipeline.errors import UsageError

_SECRET = re.compile(
    r"(?:.*[_-])?(?:password|passwd|passphrase|secret|token|credentials?|(?:private|secret|access|api)[_-]?key)",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@:]*:[^/\s@]+@", re.IGNORECASE)
_ELSEWHERE = "say where it is found, as far as its kind knows: {variable: NAME}, {file: PATH} or {command: PROGRAM}"


def check_secrets(document: Any, where: str) -> None:
    """Raises UsageError that names the key, never the value."""
    _walk(document, "", where)


def _walk(value: Any, at: str, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{at}.{key}".lstrip(".")
            # Of networks keys are names of the user's, and values names of networks.
            if at != "mapping.networks" and _SECRET.fullmatch(key) and isinstance(inner, str | int) and inner:
                raise UsageError(f"{where}: {place}: a plan holds no secrets", remedy=_ELSEWHERE)
            _walk(inner, place, where)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _walk(inner, f"{at}[{number}]", where)
    elif isinstance(value, str) and _LOGIN.search(value):
        raise UsageError(f"{where}: {at}: there is a password in this address", remedy=_ELSEWHERE)
