"""How long a transfer will take, for people."""

from __future__ import annotations

from pipeline.units import duration, size

_ASSUMED_RATE = 100e6
"""Bytes a second: what the forecast of a full export assumes when it knows nothing better."""


def forecast(data: int, rate: float = _ASSUMED_RATE) -> str:
    """`data` bytes and how long they take at `rate` bytes a second, for people."""
    return f"{size(data)}, {duration(data / rate)} at {rate / 1e6:.0f} MB/s"
