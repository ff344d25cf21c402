"""Who works with the repository while everything goes wrong: each is a thread that runs one command after another."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.commands import Done, Fate, Host
from chaos.ledger import Fault, Ledger, content_of, number

MIB = 1 << 20
PATIENCE = ("3", "8", "20")
"""Seconds for which a command tries again."""
ATTEMPTS = 6
"""So often the same command is run, until it tells how it went."""


@dataclass
class Actor:
    """`turn` is called until the chaos is over."""

    name: str
    host: Host
    ledger: Ledger
    sleep: Callable[[float], object]
    """Until time has passed at the store, and then so many seconds."""
    chance: random.Random
    calm: bool = False
    """Nothing happens to its processes any more."""

    def turn(self) -> None:
        raise NotImplementedError

    def run(self, *arguments: object, **settings: str) -> Done:
        given = {
            "FAILBACK_RETRY_DEADLINE": self.chance.choice(PATIENCE),
            "FAILBACK_CONNECT_TIMEOUT": "2",
            "FAILBACK_REQUEST_TIMEOUT": "6",
            "FAILBACK_STALL_TIMEOUT": "4",
            **settings,
        }
        if self.calm:
            given = {}
        fate = Fate() if self.calm else Fate.draw(self.chance)
        return self.host.run(*arguments, fate=fate, settings=given, sleep=self.sleep)

    def rest(self, most: float) -> None:
        if not self.calm:
            time.sleep(self.chance.uniform(0, most))


@dataclass
class Writer(Actor):
    """Exports one machine, whose disks change between two exports."""

    machine: str = ""
    disks: list[Path] = field(default_factory=list)
    tag: str = ""
    """Of what is on the disks now; empty when they are to change before the next export."""

    def turn(self) -> None:
        if not self.tag or self.chance.random() < 0.2:
            self.change()
        if self.export().code == 0:
            self.tag = ""
        self.rest(1.0)

    def change(self) -> None:
        for path in self.disks:
            with open(path, "r+b") as disk:
                for _ in range(self.chance.randint(0, 6)):
                    self._write(disk.fileno(), path.stat().st_size)
        self.tag = self.ledger.new_tag(content_of(self.disks))

    def export(self) -> Done:
        more: list[str] = []
        if self.chance.random() < 0.05:
            more.append("--full")
        base = self.ledger.random_point(self.chance) if self.chance.random() < 0.15 else None
        if base is not None:
            more += ["--base", base]
        named = [part for path in self.disks for part in ("--disk", str(path))]
        limit = self.chance.choice(("0", "0", "6M", "2M"))
        arguments = ("export", self.machine, *named, "--tag", f"content={self.tag}", "--json", *more)
        done = self.run(*arguments, FAILBACK_UPLOAD_LIMIT=limit)
        forgotten = base is not None and not self.ledger.certain(base)
        done.check(4, 9, *((3, 5) if forgotten else ()))
        if done.code == 0:
            self.ledger.commit(done.result["point"], self.tag)
        elif done.code == 9:
            self.ledger.count("exports refused or fenced")
        return done

    def _write(self, disk: int, size: int) -> None:
        length = min(size, self.chance.choice((512, 4096, 65536, MIB, 2 * MIB)))
        offset = self.chance.randrange(0, size - length + 1)
        what = self.chance.random()
        if what < 0.15:
            data = bytes(length)
        elif what < 0.3 and (others := self._others()):
            # What another machine has: chunks that it may share by --base.
            offset, length = 0, min(size, 4 * MIB)
            data = self.chance.choice(others).read_bytes()[:length]
        else:
            data = self.chance.randbytes(length)
        os.pwrite(disk, data, offset)

    def _others(self) -> list[Path]:
        folder = self.disks[0].parent
        return sorted(path for path in folder.glob("*.img") if path not in self.disks)


@dataclass
class Collector(Actor):
    def turn(self) -> None:
        apply = ["--apply"] if self.chance.random() < 0.9 else []
        done = self.run("gc", *apply, "--grace", self.chance.choice(("1h", "1h", "24h")), "--json")
        done.check(4)
        if done.code == 0 and apply:
            self.ledger.count("collections")
            self.ledger.count("MiB freed", done.result["freed"] // MIB)
        self.rest(2.0)


@dataclass
class Forgetter(Actor):
    """The only one who gives points up, so that it knows which ones those may be."""

    machines: tuple[str, ...] = ()

    def turn(self) -> None:
        machine = self.chance.choice(self.machines)
        what = self.chance.random()
        if what < 0.5:
            self.by_policy(machine, self.chance.randint(2, 4))
        elif what < 0.75:
            self.one(machine)
        else:
            self.bring_back(machine)
        self.rest(2.0)

    def by_policy(self, machine: str, keep: int) -> None:
        for attempt in range(ATTEMPTS):
            before = self.ledger.judge(machine)
            done = self.run("forget", machine, "--keep-last", keep, "--json")
            done.check(4, *([] if before else [3]))  # 3: nothing was exported yet
            if done.code in (0, 3):
                actions = {p["point"]: p["action"] for p in done.result.get("points", [])}
                self.ledger.judged(machine, before, actions, again=attempt > 0)
                return

    def one(self, machine: str) -> None:
        label = self.ledger.random_point(self.chance, machine)
        if label is None:
            return
        self.ledger.doubt([label])
        for attempt in range(ATTEMPTS):
            done = self.run("forget", label, "--reason", "chaos", "--json")
            done.check(2, 4, *([3] if attempt else []))
            if done.code in (0, 3):  # 3: an attempt before this one has forgotten it
                self.ledger.forget([label])
                return
            if done.code == 2:  # held, or the last one; an earlier attempt may yet arrive
                if not attempt:
                    self.ledger.keep([label])
                return

    def bring_back(self, machine: str) -> None:
        gone = [label for label in self.ledger.gone()[-6:] if label.startswith(f"{machine}@")]
        if not gone:
            return
        label = self.chance.choice(gone)
        tag = self.ledger.tag(label)
        done = self.run("unforget", label, "--json")
        done.check(3, 4, 9)
        if done.code == 0 and tag is not None:
            self.ledger.commit(done.result["point"], tag)
            self.ledger.count("points brought back")


@dataclass
class Restorer(Actor):
    """Brings points home, into folders of its own, and compares."""

    out: Path = Path()

    def turn(self) -> None:
        label = self.ledger.random_point(self.chance)
        if label is None:
            time.sleep(0.5)
            return
        fresh = self.chance.random() < 0.3
        folder = self.out / ("fresh" if fresh else label.partition("@")[0])
        for _ in range(4):
            if self.restore(label, folder):
                break
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        self.rest(1.0)

    def restore(self, label: str, folder: Path) -> bool:
        """Whether it came to its end. Raises Fault when other bytes came back."""
        limit = self.chance.choice(("0", "0", "8M"))
        done = self.run("import", label, "--to", "files", "--out", folder, "--json", FAILBACK_DOWNLOAD_LIMIT=limit)
        if done.code in (3, 5) and not self.ledger.certain(label):
            done.check(3, 5)
            return True
        done.check(4, 9)
        if done.code != 0:
            return False
        compare(self.ledger, label, folder)
        return True


def compare(ledger: Ledger, label: str, folder: Path) -> None:
    """Raises Fault unless the disks in `folder` are, bit for bit, what the point was made from."""
    expected = ledger.content(label)
    machine = label.partition("@")[0]
    found = content_of([folder / f"{machine}-disk{n}.raw" for n in range(len(expected))])
    if found != expected:
        raise Fault(f"{label} came back with other bytes: {found}, not {expected}")
    ledger.count("restores compared")


@dataclass
class Reader(Actor):
    """Looks, lists, verifies and scrubs."""

    def turn(self) -> None:
        label = self.ledger.random_point(self.chance)
        machine = label.partition("@")[0] if label else ""
        whole: list[tuple[object, ...]] = [("list",), ("scrub", "--listing"), ("scrub", "--share", "1/2")]
        of_one: list[tuple[object, ...]] = [
            ("list", machine),
            ("show", label),
            ("verify", label),
            ("verify", label, "--read"),
        ]
        arguments = self.chance.choice(whole + of_one if label else whole)
        done = self.run(*arguments, "--json")
        gone = label is not None and label in map(str, arguments) and not self.ledger.certain(label)
        done.check(4, *((3, 5, 8) if gone else ()))
        if done.code == 0 and arguments[:1] == ("list",) and machine in arguments and label is not None:
            listed = {p["point"] for p in done.result["points"]}
            if label not in listed and self.ledger.certain(label):
                raise Fault(f"{label} is not listed: {sorted(listed, key=number)}")
        self.rest(1.5)
