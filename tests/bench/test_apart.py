"""Functions that run in a process of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.bench.apart import apart
from scripts.bench.tool import ROOT

SLEEPS = """
import os, pathlib, sys, time
from scripts.bench.apart import apart

def sleep(note):
    pathlib.Path(note).write_text(str(os.getpid()))
    time.sleep(300)

if __name__ == "__main__":
    apart(sleep, sys.argv[1])
"""


def test_another_process_answers() -> None:
    assert apart(os.getpid) != os.getpid()


def test_an_interrupt_does_not_wait_for_the_function(tmp_path: Path) -> None:
    program, note = tmp_path / "sleeps.py", tmp_path / "note"
    program.write_text(SLEEPS)
    process = subprocess.Popen(
        [sys.executable, program, note], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + 60
        while not (note.exists() and note.read_text()) and time.monotonic() < limit:
            time.sleep(0.05)
        child = int(note.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
        assert not Path(f"/proc/{child}").exists()
    finally:
        process.kill()
        process.wait()
