"""How much memory the C library keeps for threads that are gone."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""mallopt(3) of glibc."""


def few_arenas(most: int = 2) -> bool:
    """glibc gives threads arenas of their own, up to eight a processor, and what was freed in one is not used by the
    threads of another: disks that go one after the other, each with its own threads, would each leave their windows'
    memory behind (four disks of 1 GiB: 272 MiB of peak memory instead of 226). For the whole process, from now on.
    False: this is another C library, which is left alone."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_ARENA_MAX, most))
