"""Text and JSON as they are stored: UTF-8, whatever a path or a platform's description held."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from manifests.errors import UsageError


def printable(text: str) -> str:
    """`text` with what UTF-8 can't hold (bytes of a path in another encoding) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def plain_json(value: Any) -> Any:
    """`value` as it reads back from JSON. Raises ValueError for what JSON can't hold, such as NaN, and says where."""
    return _plain(value, "")


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where or 'the value'} is {value}, which JSON can't hold")
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where or 'the value'} has the key {key!r}; keys are text")
        return {printable(key): _plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise ValueError(f"{where or 'the value'} is a {type(value).__name__}, which JSON can't hold")


def to_json(document: dict[str, Any]) -> bytes:
    """The stored form: UTF-8, sorted keys, no white space. Raises UsageError for what JSON can't hold."""
    try:
        plain = plain_json(document)
    except ValueError as error:
        raise UsageError(f"this cannot be recorded: {error}") from error
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _shown(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


Shown = Annotated[str, BeforeValidator(_shown)]
"""Text for people that came from a system which knows bytes only, such as a path."""

PlainJson = Annotated[dict[str, Any], AfterValidator(plain_json)]
"""A JSON object of any shape."""
