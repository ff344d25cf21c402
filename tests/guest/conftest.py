"""Guests are built once, in the cache of the person who runs the tests: each test gets a copy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# The builder is not installed: it is found from the top of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.boot.cache import default_folder
from scripts.guest import GuestDisks, build_guest

_CACHE = default_folder()
"""Looked up before tests isolate themselves."""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., GuestDisks]:
    """`build_guest` into a folder of this test."""

    def build(**arguments: object) -> GuestDisks:
        return build_guest(tmp_path / "guest", cache=_CACHE, **arguments)  # type: ignore[arg-type]

    return build


@pytest.fixture
def cache() -> Path:
    """The cache that `build` uses."""
    return _CACHE
