"""Sizes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of `8GiB`, `8G`, `512 MiB`: powers of two, whatever the spelling. Raises ValueError.

    A number without a unit is refused: bytes to some, MiB to others.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as 8GiB or 512MiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])
