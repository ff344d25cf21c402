"""Damaged inputs, made from sound ones: what is far from any sound input is refused at its first byte."""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NIGHTLY = bool(os.environ.get("FAILBACK_NIGHTLY"))
SECONDS = 20
"""Of one example at most, on a machine under load; all are made to end in milliseconds."""
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 4095, 4096, 4097, 0x7FFF, 0xFFFF, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
           1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
"""At which lengths, counts and offsets go wrong."""


def fuzz(examples: int) -> settings:
    """`examples` in the short profile, a hundred times as many in the nightly one (FAILBACK_NIGHTLY=1)."""
    return settings(
        max_examples=examples * (100 if NIGHTLY else 1),
        deadline=timedelta(seconds=SECONDS),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


@st.composite
def mutated(draw: Callable[..., Any], seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in a few places."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("byte", "number", "cut", "insert", "repeat", "splice")))
        if kind == "byte" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "number":
            width = draw(st.sampled_from((2, 4, 8)))
            order = draw(st.sampled_from(("little", "big")))
            number = draw(st.sampled_from(NUMBERS)) % (1 << 8 * width)
            at -= at % 2
            data[at : at + width] = number.to_bytes(width, order)
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=40))
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 20))
        else:
            other = draw(st.sampled_from(seeds))
            data[at:] = other[at:]
    return bytes(data)


_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([*NUMBERS, -1, 10**400, 1e308, "", "\ud800", "0" * 64])
)
VALUES = st.recursive(
    _SCALARS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""What JSON and YAML can hold."""


def nested(depth: int) -> Any:
    """A list in a list …"""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


@st.composite
def changed(draw: Callable[..., Any], document: Any) -> Any:
    """A document of JSON with one to three of its values, at any depth, changed, taken away or added."""
    for _ in range(draw(st.integers(1, 3))):
        document = draw(_changed_once(document, draw(st.integers(0, 4))))
    return document


@st.composite
def _changed_once(draw: Callable[..., Any], value: Any, depth: int) -> Any:
    if depth and isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 9)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: draw(_changed_once(value[key], depth - 1))}
    if depth and isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(_changed_once(value[at], depth - 1)), *value[at + 1 :]]
    return draw(VALUES | st.sampled_from([150, 300]).map(nested))


@contextmanager
def bounded(length: int, *, factor: int = 64, limit: int = 4 << 20) -> Iterator[None]:
    """The block takes `factor` times the input's `length` and `limit` bytes of memory at most, and ends.

    `limit`: what is allocated for any input, however short.
    """

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"still at it after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak <= factor * length + limit, f"{peak} bytes for an input of {length}"
