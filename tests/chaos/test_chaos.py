"""Real processes on a real server, killed, stopped, cut off and out of room: no committed point is lost."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from chaos.world import World

SECONDS = float(os.environ.get("FAILBACK_CHAOS_SECONDS") or (600 if os.environ.get("FAILBACK_NIGHTLY") else 15))
SEED = int(os.environ.get("FAILBACK_CHAOS_SEED") or random.randrange(1 << 32))
"""Both read before the tests lose what the person who runs them has set."""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a disk that can be filled is mounted by root")
def test_no_committed_point_is_lost_whatever_happens(tmp_path: Path) -> None:
    start = time.monotonic()
    with World(tmp_path, SEED).there() as world:
        try:
            world.run(SECONDS)
            world.settle()
        finally:
            print(world.report(time.monotonic() - start))
