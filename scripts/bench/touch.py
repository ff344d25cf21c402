"""Touch: free memory that the hypervisor has taken away is given back before a step, not during it."""

import mmap
import re
from pathlib import Path

from scripts.bench.apart import apart

SPARED = 512 << 20
"""Bytes of free memory that are left alone, so that nothing is pushed out of the page cache."""


def touch_free_memory(most: int) -> None:
    """Use up to `most` bytes of free memory once, and free them again.

    Virtual machines give free memory back to their host (balloon, free page reporting). Whoever uses it next pays for
    getting it again, up to a second a GiB here: the first tool of a round would, the others not.
    """
    free = int(re.findall(r"MemFree: +(\d+) kB", Path("/proc/meminfo").read_text())[0]) * 1024
    if (length := min(most, free - SPARED)) > 0:
        # In a process of its own: the peaks of the measured commands count from ours on.
        apart(_touch, length)


def _touch(length: int) -> None:
    # MAP_POPULATE: every page is there when the call returns.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, length, flags=flags).close()
