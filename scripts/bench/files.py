"""Files: the state of caches and directories before and after something is timed."""

import shutil
import subprocess
import time
from pathlib import Path

from scripts.bench.extents import data_extents

PIECE = 4 << 20


def warm(path: Path) -> None:
    """Read a file once, holes left out, so that every tool finds it in the page cache (as far as it fits there)."""
    buffer = bytearray(PIECE)
    with open(path, "rb", buffering=0) as file:
        for extent in data_extents(path):
            file.seek(extent.offset)
            left = extent.length
            while left > 0:
                left -= file.readinto(memoryview(buffer)[: min(left, PIECE)]) or left


def settle(*places: Path) -> float:
    """Write what is dirty on the file systems of these places; returns the seconds that took."""
    begin = time.perf_counter()
    for place in places:
        subprocess.run(["sync", "-f", place], check=True)
    return time.perf_counter() - begin


def empty(directory: Path) -> Path:
    """An empty directory in place of whatever was there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0


def file_system(place: Path) -> str:
    """Type of the file system a directory is on, such as ext4 or tmpfs."""
    answer = subprocess.run(["stat", "-f", "-c", "%T", place], stdout=subprocess.PIPE, text=True, check=True)
    return answer.stdout.strip()
