"""Memory of threads that are gone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from pipeline.arenas import few_arenas
if sys.argv[1] == "few":
    assert few_arenas()
kept = []
def work():
    for _ in range(200):
        kept.append(bytes(60_000))
    kept.clear()
threads = []
gate = threading.Barrier(17)
def run():
    gate.wait(); work(); gate.wait()
for _ in range(16):
    threads.append(threading.Thread(target=run)); threads[-1].start()
gate.wait(); gate.wait()
print(open("/proc/self/maps").read().count("\\n"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_few_arenas_when_told_so() -> None:
    def mappings(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert mappings("few") < mappings("many")
