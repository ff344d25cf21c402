"""By hand, as root: `PYTHONPATH=tests:. python -m runs.estate.suspended FOLDER [--seconds 180] [--back] [--serve]`.

Machines in QEMU come home by way of MinIO. Their conductor is suspended between the lock of the takeover side and the
start at home; one on another host takes over when it was silent for long enough, and goes on, or back; then the first
wakes up. Says what happened when, and what it came to.

`--serve`: both are `run serve`, with a database each.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from servers import run_minio

from pipeline.cli import exitcodes
from pipeline.errors import Superseded
from pipeline.runs.entries import Ended, Entry, Taken
from pipeline.runs.fold import RunState
from pipeline.runs.journal import Journal
from runs.estate.estate import Estate

FIRST, SECOND = "bridge-1", "bridge-2"
"""Hosts that conduct."""
_WAKE_SECONDS = 120.0
_TAKEN_SECONDS = 300.0


@dataclass
class Told:
    """What happened, with the seconds since the first conductor was suspended."""

    since: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.since:7.1f} s  {text}")
        print(self.lines[-1], flush=True)


def suspended(estate: Estate, *, seconds: float, back: bool = False, serve: bool = False) -> Told:
    """Raises AssertionError when anything was started twice, or the first conductor does not know of the second."""
    plan = estate.plan()
    if serve:
        assert estate.failback("run", "start", plan, "--detach", host=FIRST).code == exitcodes.OK
        first = estate.begun("run", "serve", "--verbose", host=FIRST)
    else:
        first = estate.begun("run", "start", plan, host=FIRST)
    estate.until(lambda state: _between(state, estate), first)
    _suspend(first, estate)
    told = Told()
    told.say(f"{FIRST} is suspended: {_reached(estate.state())}")
    assert not any(estate.state().began(f"boot/{machine}") for machine in estate.machines), "suspended too late"
    assert not any(estate.watcher.alive(machine) for machine in estate.machines)

    with ThreadPoolExecutor(1) as pool:
        if serve:
            estate.begun("run", "serve", "--verbose", host=SECOND)
        else:
            conducted = pool.submit(_conducts, estate, told, back=back)
        estate.until(lambda state: state.process.get("host") == SECOND)
        told.say(f"{SECOND} took over: {_taken(estate).why}")
        time.sleep(max(0.0, told.since + seconds - time.monotonic()))
        state = estate.state()
        told.say(f"{FIRST} wakes up, entry {state.number}: {state.outcome or _reached(state)}")
        first.send_signal(signal.SIGCONT)
        _learns(first, estate, told, serve=serve)
        state = estate.until(lambda state: state.outcome is not None)
        if not serve:
            conducted.result()
    told.say(f"{SECOND} brought the run to its end: {state.outcome}")
    assert state.outcome == ("rolled back" if back else "committed")
    side = "takeover" if back else "home"
    assert estate.client.goes_on(estate.ports[side]), "nothing new is acknowledged"
    told.say(f"clients go on at {side}")

    time.sleep(2.0)  # beacons of whatever might have been started besides
    journal = Journal(estate.repository, state.run).read()
    taken = max(entry.number for entry in journal if isinstance(entry.body, Taken))
    assert not [entry for entry in journal if entry.number > taken and entry.by.endswith(FIRST)], "it wrote on"
    starts = {machine: _starts(journal, machine) for machine in estate.machines}
    assert set(starts.values()) == {0 if back else 1}, starts
    boots = {machine: len(estate.watcher.boots(machine)) for machine in estate.machines}
    assert set(boots.values()) == {2}, boots
    estate.check_one_side()
    estate.check_kept(side)
    told.say(f"started at home {starts}; boots heard {boots}, never two at once; no acknowledged number is lost")
    return told


def _learns(first: subprocess.Popen[str], estate: Estate, told: Told, *, serve: bool) -> None:
    """That it was replaced. One that serves goes on to serve, until it is told to end."""
    log = estate.root / f"begun-{FIRST}.log"
    words = f"on {SECOND} by now"
    if serve:
        end = time.monotonic() + _WAKE_SECONDS
        while words not in log.read_text():
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.1)
        first.send_signal(signal.SIGTERM)
    code = first.wait(_WAKE_SECONDS)
    said = [line for line in log.read_text().splitlines() if words in line]
    told.say(f"{FIRST} ended with {code}: {said[-1] if said else log.read_text()[-500:]}")
    assert said, "it does not know that it was replaced"
    assert code == (128 + signal.SIGTERM if serve else Superseded.exit_code)


def _conducts(estate: Estate, told: Told, *, back: bool) -> None:
    """A person at the other host tries until it may."""
    if back:
        estate.failback("run", "rollback", "shop", "--by", "Ada", "--no-conduct", host=SECOND)
    end, refused = time.monotonic() + _TAKEN_SECONDS, False
    while True:
        done = estate.failback("run", "conduct", "shop", host=SECOND)
        if "is conducted by" not in done.err:
            assert done.code == (exitcodes.RUN_UNDONE if back else exitcodes.OK), done.err
            return
        if not refused:
            told.say(f"{SECOND} is refused: {done.err.splitlines()[0]}")
        refused = True
        assert time.monotonic() < end, done.err
        time.sleep(2.0)


def _between(state: RunState, estate: Estate) -> bool:
    """The takeover side is off and locked; nothing is started at home."""
    return all(state.done(f"lock/{machine}") for machine in estate.machines)


def _suspend(process: subprocess.Popen[str], estate: Estate) -> None:
    """At a moment at which it locks nothing at either side: a platform that is a server's, which both hosts really
    reach, is not locked by files."""
    for _ in range(5000):
        process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        if not _locked(process.pid) & _files(estate.root / "takeover", estate.root / "home"):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.003)
    raise AssertionError("it always holds a lock")


def _locked(process: int) -> set[int]:
    """Inodes of files that a process has locked (proc_locks(5))."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(words[5].rpartition(":")[2]) for words in lines if "->" not in words and words[4] == str(process)}


def _files(*folders: Path) -> set[int]:
    return {path.stat().st_ino for folder in folders for path in folder.rglob("*") if path.is_file()}


def _taken(estate: Estate) -> Taken:
    """By whom the run was taken over last."""
    entries = Journal(estate.repository, estate.state().run).read()
    return [entry.body for entry in entries if isinstance(entry.body, Taken)][-1]


def _starts(journal: list[Entry], machine: str) -> int:
    """Times that it was started at home."""
    bodies = [entry.body for entry in journal if isinstance(entry.body, Ended)]
    return sum(body.done and body.effect == f"boot/{machine}" for body in bodies)


def _reached(state: RunState) -> str:
    """The last effect that was done."""
    done = [(effect.ended, name) for name, effect in state.effects.items() if effect.done and effect.ended]
    return f"the last that was done is {max(done)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--back", action="store_true", help="the other conductor is told to go back")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    root = arguments.folder.absolute()
    root.mkdir(parents=True)
    with run_minio(root / "minio") as bucket:
        os.environ |= bucket.environ
        with Estate(root, bucket) as estate:
            suspended(estate, seconds=arguments.seconds, back=arguments.back, serve=arguments.serve)


if __name__ == "__main__":
    main()
