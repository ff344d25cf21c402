"""A command that hangs ends all the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

HANGING = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pipeline.cli import signals
from pipeline.cli.invocation import Common, Invocation
signals.GRACE_SECONDS = 0.5

def work():
    # A signal that comes just before the main thread waits is seen by Python only after the next one.
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "wait":
        time.sleep(0.05)
    time.sleep(0.05)
    print("ready", flush=True)
    time.sleep(60)

def hang(invocation):
    invocation.how_to_go_on = lambda: "run it again"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()

sys.exit(Invocation("hang", Common(json=True)).run(hang, {}))
"""


def start() -> subprocess.Popen[str]:
    running = subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    return running


def test_a_thread_that_waits_for_the_store_does_not_hold_up_the_end(tmp_path: Path) -> None:
    running = start()
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 143
    assert err.splitlines() == ["failback: hang was interrupted", "  run it again"]
    assert json.loads(out)["exit_code"] == 143
    assert "exit code 143" in (tmp_path / "state" / "failback.log").read_text()


def test_a_second_signal_ends_at_once() -> None:
    running = start()
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=20)
    assert running.returncode in (130, 143)


INTERRUPTED_CLASS = """
import os, signal, sys
from pipeline.cli.invocation import Common, Invocation

class Name:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)

def work(invocation):
    class Late:  # as a module that a command imports makes its classes
        name = Name()

sys.exit(Invocation("work", Common(json=True)).run(work, {}))
"""


def test_a_signal_while_a_class_is_made_is_no_bug() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_CLASS], capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[0] == "failback: work was interrupted"
    assert json.loads(done.stdout)["exit_code"] == 143


INTERRUPTED_START = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "pipeline.cli.export":  # one of the many that the list of commands imports
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Interrupts())
from {module} import {name}
sys.exit({name}())
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_command_that_is_interrupted_before_it_began_ends_in_silence(number: str) -> None:
    [script] = entry_points(group="console_scripts", name="failback")
    program = INTERRUPTED_START.format(number=number, module=script.module, name=script.attr)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (-signal.Signals[number], "", "")
