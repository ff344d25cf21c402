"""How long a transfer will take, for people."""

from __future__ import annotations

_ASSUMED_RATE = 100e6
"""Bytes a second: what the forecast of a full export assumes when it knows nothing better."""


def forecast(data: int, rate: float = _ASSUMED_RATE) -> str:
    """`data` bytes and how long they take at `rate` bytes a second, for people."""
    return f"{_tenths(data / 2**30)} GiB, {_tenths(data / rate / 3600)} h at {rate / 1e6:.0f} MB/s"


def _tenths(number: float) -> str:
    return f"{number:.1f}" if number >= 0.1 else "under 0.1"
