"""The whole estate: takeover site, bucket, plan, client, watcher, and `failback` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from servers import Server, free_port

from pipeline.keys.locks import KeyFile
from pipeline.repository import Repository
from pipeline.runs.begin import run_names
from pipeline.runs.fold import RunState
from pipeline.runs.journal import Journal, state_of
from pipeline.store.open import open_store
from runs.estate.client import Client, kept
from runs.estate.machines import DATABASE_PORT, await_ready, end_all, make_disk, power_on
from runs.estate.watcher import Watcher

COMMAND = (sys.executable, "-c", "from pipeline.cli.main import run; run()")
SECONDS = 900.0


def on_host(name: str) -> tuple[str, ...]:
    """What a command begins with that is to take itself for one on a host of that name; its process stays the same."""
    return ("unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh") if name else ()


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Estate:
    """Use as a context: its end leaves no process. `machines`: the first has the database; the others need it."""

    pause = 0.01
    """Seconds between two numbers of the client."""
    every = 0.05
    """Seconds from one beacon to the next."""

    def __init__(self, root: Path, bucket: Server, machines: Sequence[str] = ("db", "web-1")) -> None:
        self.root, self.machines = root, tuple(machines)
        self.bucket = bucket
        self.address = bucket.address()
        self.key = root / "failback.key"
        self.gate = root / "gate"
        self.ports = {"takeover": free_port(), "home": free_port()}
        """Of this host, which lead to the database."""
        self.environ = {
            **os.environ, **bucket.environ, "FAILBACK_REPOSITORY": self.address, "FAILBACK_KEY_FILE": str(self.key),
            "FAILBACK_STATE_DIR": str(root / "state"), "COLUMNS": "120",
        }  # fmt: skip
        self._stack = ExitStack()

    def __enter__(self) -> Estate:
        with ExitStack() as stack:
            stack.callback(end_all, self.root)
            self.watcher = Watcher()
            stack.callback(self.watcher.close)
            self.lead("takeover")
            for number, name in enumerate(self.machines, 1):
                forward = self.ports["takeover"] if name == self.machines[0] else 0
                power_on(self.folder(name), make_disk(self.folder(name), name), forward=forward, number=number)
            assert self.failback("repository", "init").code == 0
            for name in self.machines:
                database = name == self.machines[0]
                await_ready(self.folder(name), database=database, beacon=self.watcher.port, every=self.every)
            self.client = Client(lambda: self.ports[self.gate.read_text().strip()], self.pause)
            stack.callback(self.client.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def folder(self, machine: str) -> Path:
        """At the takeover site."""
        return self.root / "takeover" / machine

    def lead(self, side: str) -> None:
        """Where clients go."""
        partial = self.gate.with_suffix(".new")
        partial.write_text(f"{side}\n")
        partial.replace(self.gate)

    # -- the plan --------------------------------------------------------------------------------------------------

    def plan(self, *, failing: Sequence[str] = (), **changes: Any) -> Path:
        """Written to a file. `failing`: machines whose check finds something wrong at home."""
        first, *others = self.machines
        checks = {name: self._checks(name, name in failing) for name in self.machines}
        document: dict[str, Any] = {
            "name": "shop",
            **self._home(),
            "source": {"kind": "qemu"},
            "machines": {
                first: {
                    "source": {
                        "folder": str(self.folder(first)),
                        "quiesce": ["/etc/guest/database", "stop"],
                        "unquiesce": ["/etc/guest/database", "start"],
                    },
                    "checks": checks[first],
                },
                **{
                    name: {"source": {"folder": str(self.folder(name))}, "needs": [first], "checks": checks[name]}
                    for name in others
                },
            },
            "groups": [{"name": "shop", "waves": [[first], others], "traffic": self._traffic()}],
            "approvals": {"cutover": False, "gate": False, "commit": False},
            "commit": {"after": "5s", "green": 1, "every": "1s"},
            "deadlines": {"checks": "10min"},
        }
        path = self.root / "shop.yaml"
        path.write_text(yaml.safe_dump(document | changes, sort_keys=False))
        return path

    def _home(self) -> dict[str, Any]:
        """Target and mapping."""
        forwards = {self.ports["home"]: DATABASE_PORT}
        return {
            "target": "qemu",
            "mapping": {
                "networks": {"*": {"name": "user"}},
                "options": {"qemu": {"accelerator": "tcg"}},
                "machines": {self.machines[0]: {"options": {"qemu": {"accelerator": "tcg", "forwards": forwards}}}},
            },
        }

    def _checks(self, name: str, failing: bool) -> list[dict[str, Any]]:
        if name == self.machines[0]:
            found: list[dict[str, Any]] = [
                {
                    "name": "takes clients",
                    "hook": "tcp",
                    "settings": {"port": DATABASE_PORT, "banner": "^database ready"},
                },
                {
                    "name": "whole",
                    "hook": "guest",
                    "settings": {"command": ["/etc/guest/database", "check"], "output": "no gap"},
                    "after": ["takes clients"],
                },
            ]
        else:
            found = [{"name": "page", "hook": "http", "settings": {"port": 80, "text": f"name: {name}"}}]
        if failing:
            found.append({
                "name": "till", "hook": "guest", "within": "0s", "after": [found[-1]["name"]],
                "settings": {"command": ["cat", "/etc/failback-guest/till"]},
            })  # fmt: skip
        return found

    def _traffic(self) -> list[dict[str, Any]]:
        def move(side: str) -> list[str]:
            return ["/bin/sh", "-c", f"echo {side} >{self.gate}.new && mv {self.gate}.new {self.gate}"]

        see = f"[ $(cat {self.gate}) = home ] && echo open || echo closed"
        programs = {"open": move("home"), "close": move("takeover"), "observe": ["/bin/sh", "-c", see]}
        return [{"name": "clients", "kind": "command", "settings": programs}]

    # -- failback --------------------------------------------------------------------------------------------------

    def failback(self, *arguments: object, host: str = "") -> Done:
        """`host`: name of one of its own (needs root), which has a state folder, and reaches the same platforms."""
        words = [*on_host(host), *COMMAND, *map(str, arguments)]
        environ = self.environ_of(host)
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
        print(f"$ failback {' '.join(map(str, arguments))}  -> {done.returncode}\n{done.stdout}{done.stderr}")
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def log(self) -> str:
        """What commands that were left to themselves said."""
        return (self.root / "begun.log").read_text()

    def environ_of(self, host: str) -> dict[str, str]:
        if not host:
            return self.environ
        home, state = self.root / "home", self.root / host
        (state / "targets").mkdir(parents=True, exist_ok=True)
        home.mkdir(exist_ok=True)
        if not (state / "targets" / "qemu").exists():
            (state / "targets" / "qemu").symlink_to(home, target_is_directory=True)
        return {**self.environ, "FAILBACK_STATE_DIR": str(state)}

    def begun(self, *arguments: object, host: str = "") -> subprocess.Popen[str]:
        """Left to itself; killed at the end of the estate if it still runs."""
        words = [*on_host(host), *COMMAND, *map(str, arguments)]
        log = (self.root / f"begun{host and '-'}{host}.log").open("a")
        with log:
            process = subprocess.Popen(
                words, env=self.environ_of(host), stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
            )
        self._stack.callback(process.kill)
        return process

    def killed_when(self, holds: Callable[[RunState], bool], *arguments: object) -> None:
        """A command that conducts is killed as soon as the journal says so."""
        process = self.begun(*arguments)
        try:
            self.until(holds, process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def until(self, holds: Callable[[RunState], bool], process: subprocess.Popen[str] | None = None) -> RunState:
        journal, end = None, time.monotonic() + SECONDS
        while True:
            if journal is None and (names := [n for n in run_names(self.repository) if n.startswith("shop-")]):
                journal = Journal(self.repository, names[-1])
            if journal is not None and (state := state_of(journal)).number and holds(state):
                return state
            assert process is None or process.poll() is None, self.log[-3000:]
            assert time.monotonic() < end, "it does not come to that"
            time.sleep(0.02)

    @cached_property
    def repository(self) -> Repository:
        return Repository.open(open_store(self.address), lambda: [KeyFile(self.key)])

    def state(self) -> RunState:
        """Of the newest run."""
        return state_of(Journal(self.repository, run_names(self.repository)[-1]))

    # -- what is true ----------------------------------------------------------------------------------------------

    def check_kept(self, side: str) -> None:
        """The database at that side has every number that was ever acknowledged, and none is missing before it."""
        acknowledged = {number for number, _port, _time in list(self.client.acknowledged)}
        numbers = set(kept(self.ports[side]))
        assert acknowledged <= numbers, sorted(acknowledged - numbers)
        assert numbers == set(range(1, max(numbers) + 1))

    def check_one_side(self) -> None:
        assert self.watcher.overlaps() == []
        for name in self.machines:
            assert len(self.watcher.alive(name)) <= 1
