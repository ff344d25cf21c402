"""Small JSON and YAML documents of the user: a path, or any URL that fsspec knows (s3:// through s3fs)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

MAX_BYTES = 256 << 20
"""A change list of ten million extents has about this size."""


def read_document(where: str, *, yaml: bool = False) -> Any:
    """The content of a JSON or, by its ending or with `yaml`, YAML document. Raises UsageError that names it."""
    text = _read(where)
    try:
        if yaml or Path(where.partition("?")[0]).suffix.lower() in (".yaml", ".yml"):
            from yaml import YAMLError, safe_load

            try:
                return safe_load(text)
            except YAMLError as error:
                raise ValueError(str(error)) from None
            except (LookupError, AttributeError, TypeError) as error:
                # PyYAML's own, for `!!bool x`, `!!int ""`, `!!timestamp x`.
                raise ValueError(f"a value does not fit its tag ({type(error).__name__} {error})") from None
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} cannot be understood: {error}", remedy="correct the file") from None


def write_json(where: str, value: Any) -> None:
    """Write `value`. Raises UsageError when that is not possible."""
    write_bytes(where, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(where: str, data: bytes) -> None:
    """Write a small file. Raises UsageError when that is not possible."""
    try:
        if "://" not in where:
            Path(where).write_bytes(data)
            return
        import fsspec

        with fsspec.open(where, "wb") as file:
            file.write(data)
    except _failures() as error:
        raise UsageError(f"{where} cannot be written: {_reason(error)}", remedy="check the address") from error


def _read(where: str) -> str:
    try:
        if "://" not in where:
            with open(where, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            import fsspec

            with fsspec.open(where, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        return bytes(data).decode("utf-8")
    except _failures() as error:
        raise UsageError(f"{where} cannot be read: {_reason(error)}", remedy="check the name and its rights") from error


def _failures() -> tuple[type[Exception], ...]:
    """What reading and writing may raise; of botocore only when somebody has loaded it."""
    if "botocore" not in sys.modules:
        return OSError, ValueError, ImportError
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, ValueError, ImportError, BotoCoreError, ClientError


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
