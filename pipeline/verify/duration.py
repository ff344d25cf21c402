"""Lengths of time as people write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

DAY = 86400.0
_PATTERN = r"\d+(?:\.\d+)?\s*(?:ms|s|m|min|h|d)"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": DAY}


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `30s`, `5m` or `5min`, `1h`, `2d`. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as 30s or 5min")
    return float(match[1]) * _UNITS[match[2]]


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


_Written = Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=f"^{_PATTERN}$")]
_Read = BeforeValidator(_seconds, json_schema_input_type=_Written)

Seconds = Annotated[float, Field(ge=0, le=7 * DAY, allow_inf_nan=False), _Read]
"""Seconds; in YAML a number of them, or a text with a unit."""
LongSeconds = Annotated[float, Field(gt=0, le=3660 * DAY, allow_inf_nan=False), _Read]
"""What may take days or years; not nothing."""
