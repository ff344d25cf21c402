"""Measure: run a command and its descendants, and say what they took."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two looks at the memory of all descendants."""


@dataclass(frozen=True)
class Command:
    """What to run: arguments, and what to add to the environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None


@dataclass(frozen=True)
class Figures:
    """What a command took.

    CPU seconds count the command and every descendant it waited for. `peak_largest` is the kernel's maximum resident
    set of the largest single process, `peak_sum` the highest sampled sum over all descendants; a page that two of them
    share counts twice there. Both in bytes.
    """

    wall: float
    user: float
    system: float
    peak_largest: int
    peak_sum: int


class CommandFailed(Exception):
    """A command ended with another status than zero; the message carries the end of what it printed."""


def run(command: Command, log: Path, *, answer: Path | None = None, codes: Collection[int] = (0,)) -> Figures:
    """Run a command to its end, its output appended to `log`; with `answer` standard output is written there. Raises
    CommandFailed unless it ends with one of `codes`."""
    with open(log, "ab") as output, open(answer or os.devnull, "wb") as answered:
        output.write(f"$ {' '.join(command.arguments)}\n".encode())
        output.flush()
        begin = time.perf_counter()
        process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=answered if answer else output,
            stderr=output,
            start_new_session=True,
        )
        try:
            with _sampled(process.pid) as sampler:
                _, status, usage = os.wait4(process.pid, 0)
                wall = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it once more
        finally:
            # Descendants of an interrupted or crashed command live in the session that was made for it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                process.wait()  # what it held, locks above all, is free when this returns
    if process.returncode not in codes:
        raise CommandFailed(f"{command.arguments[0]} ended with {process.returncode}, see {log}:\n{tail(log)}")
    return Figures(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024, sampler.peak)


def tail(log: Path, length: int = 1500) -> str:
    """The last bytes of a log as text."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - length))
        return file.read().decode(errors="replace")


def own_peak() -> int:
    """Maximum resident set of this process in bytes: no child's `peak_largest` can be below it."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Sampler(threading.Thread):
    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root, self._over = root, threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._over.wait(INTERVAL):
            self.peak = max(self.peak, sum(map(_resident, _family(self._root))))

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextlib.contextmanager
def _sampled(root: int) -> Iterator[_Sampler]:
    sampler = _Sampler(root)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.stop()


def _family(process: int) -> Iterator[int]:
    yield process
    with contextlib.suppress(OSError):  # a process may end at any moment
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # ended between the two looks
        return 0
