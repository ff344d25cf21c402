"""Run a program for a hook: within its time, with a bounded memory of what it prints, and without our secrets."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError

KEPT_BYTES = 64 << 10
"""Of the end of each output."""
STEP_SECONDS = 0.1
"""Between looks at whether anybody still waits."""
LAST_WORDS_SECONDS = 1.0
"""In which what a program printed is read after its end; something it left behind may go on printing."""
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SHELL")
"""Variables that a program needs to run at all. No others reach it, unless a check names them: the store's keys are in
our environment."""


@dataclass(frozen=True, slots=True)
class Ran:
    """`exit_code` as of a shell: 128 + N after signal N. None: it was killed, because its time was over or nobody
    waited any more. `output` and `error` are the last KEPT_BYTES."""

    exit_code: int | None
    output: bytes
    error: bytes


def environment(names: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables a program gets: PASSED_ON, those of the locale, and `names`. Raises UsageError when one of `names`
    is not set."""
    names = list(names)
    for name in names:
        if name not in environ:
            raise UsageError(f"the environment variable {name} is not set", remedy=f"export {name}=... first")
    return {key: value for key, value in environ.items() if key in PASSED_ON or key.startswith("LC_") or key in names}


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets` (of a length that can be one) blotted out."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return text


def run(
    arguments: Sequence[str],
    *,
    seconds: float,
    cancelled: threading.Event,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
) -> Ran:
    """Run it in a process group of its own. When it ends, or has had its `seconds`, or `cancelled` is set, whatever is
    left of the group is killed. Should we be killed, the kernel kills the program (not what it has started).

    Raises FileNotFoundError when there is no such program, OSError when it cannot be started.
    """
    program = shutil.which(arguments[0])
    if program is None:
        raise FileNotFoundError(f"{arguments[0]} is not installed, or not executable")
    leash = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    with tempfile.TemporaryFile() as document:
        document.write(stdin)
        document.seek(0)
        process = subprocess.Popen(
            [*leash, program, *arguments[1:]],
            stdin=document,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(environment() if environ is None else environ),
            start_new_session=True,
        )
    try:
        output, error = _follow(process, time.monotonic() + seconds, cancelled)
        ended = _ended(process)
    finally:
        # Before the leader is reaped: until then the group's number cannot be given to others.
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return Ran((code if code >= 0 else 128 - code) if ended else None, output, error)


def _follow(process: subprocess.Popen[bytes], end: float, cancelled: threading.Event) -> tuple[bytes, bytes]:
    """Read both outputs until the process has ended, its time is over, or nobody waits."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ)
        while time.monotonic() < end and not cancelled.is_set():
            # Whether it has ended is asked before reading, so that its last words are read.
            over = _ended(process)
            if over:
                end = min(end, time.monotonic() + LAST_WORDS_SECONDS)
            # With both outputs closed this is a wait of STEP_SECONDS.
            ready = selector.select(0.0 if over else STEP_SECONDS)
            for key, _ in ready:
                data = os.read(key.fd, KEPT_BYTES)
                kept[key.fd] += data
                del kept[key.fd][:-KEPT_BYTES]
                if not data:
                    selector.unregister(key.fd)
            if over and not ready:
                break
    output, error = kept.values()
    return bytes(output), bytes(error)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
