"""What a chaos run knows for certain: which points were committed, with what content, and which were given up."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

from blake3 import blake3

Content = tuple[str, ...]
"""A hash for each disk of a machine."""


class Fault(AssertionError):
    """failback did what it must not."""


def content_of(paths: list[Path]) -> Content:
    return tuple(blake3(path.read_bytes()).hexdigest() for path in paths)


class Ledger:
    """Points by label, `web@3`: certain, doubtful (somebody tried to forget it, or may have), or gone.

    Written by all actors at once. Exporters may tell late: their points may have been forgotten by then.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.contents: dict[str, Content] = {}
        """By the tag of an export: what was on the disks when it began."""
        self._tags: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self._gone: list[str] = []
        self._judged: dict[str, float] = {}
        """By machine: every point up to this number may have been forgotten by a policy."""
        self._lock = threading.Lock()

    def count(self, what: str, many: int = 1) -> None:
        with self._lock:
            self.counts[what] += many

    def new_tag(self, content: Content) -> str:
        with self._lock:
            tag = f"c{len(self.contents)}"
            self.contents[tag] = content
            return tag

    def commit(self, label: str, tag: str) -> None:
        """A command said that it committed this point. Raises Fault when another one has said so before."""
        with self._lock:
            if label in self._tags:
                raise Fault(f"{label} was committed twice: with {self._tags[label]} and with {tag}")
            self._tags[label] = tag
            if number(label) <= self._judged.get(machine_of(label), 0):
                self._doubtful.add(label)
            self.counts["points committed"] += 1

    def points(self, machine: str = "") -> list[str]:
        """Labels of committed points that nobody tried to forget, oldest first within a machine."""
        with self._lock:
            found = [label for label in self._tags if label not in self._doubtful]
        return sorted((label for label in found if machine in ("", machine_of(label))), key=number)

    def content(self, label: str) -> Content:
        with self._lock:
            return self.contents[self._tags[label]]

    def tag(self, label: str) -> str | None:
        """None when no command told of this point: its exporter was killed."""
        with self._lock:
            return self._tags.get(label)

    def doubt(self, labels: list[str]) -> None:
        """From now on these may be forgotten."""
        with self._lock:
            self._doubtful.update(labels)

    def keep(self, labels: list[str]) -> None:
        """These were not forgotten after all."""
        with self._lock:
            self._doubtful.difference_update(labels)

    def forget(self, labels: list[str]) -> None:
        """A command said that these are forgotten."""
        with self._lock:
            self._forget(labels)

    def judge(self, machine: str) -> dict[str, bool]:
        """A policy is about to judge a machine's points: all are doubtful until `judged`, and those that come, too.
        Returns those that are not gone, and whether each was certain."""
        with self._lock:
            self._judged[machine] = float("inf")
            there = [label for label in self._tags if machine_of(label) == machine and label not in self._gone]
            before = {label: label not in self._doubtful for label in there}
            self._doubtful.update(before)
            return before

    def judged(self, machine: str, before: dict[str, bool], actions: dict[str, str], *, again: bool) -> None:
        """How it ended: "keep" or "forget" by label. `again`: an earlier attempt may have left requests on their way,
        so what is kept now is not certain yet."""
        unnamed = [label for label in before if label not in actions]
        if lost := [label for label in unnamed if before[label] and not again]:
            raise Fault(f"committed, never forgotten, and not seen by a policy: {lost}")
        with self._lock:
            self._judged[machine] = max(map(number, actions), default=0)
            self._forget([*unnamed, *(label for label, action in actions.items() if action == "forget")])
            if not again:
                self._doubtful.difference_update(label for label, action in actions.items() if action == "keep")

    def _forget(self, labels: list[str]) -> None:
        new = [label for label in labels if label not in self._gone]
        self._doubtful.update(labels)
        self._gone.extend(new)
        self.counts["points forgotten"] += len(new)

    def certain(self, label: str) -> bool:
        """Whether it was never tried to forget this point."""
        with self._lock:
            return label not in self._doubtful

    def gone(self) -> list[str]:
        with self._lock:
            return list(self._gone)

    def random_point(self, chance: random.Random, machine: str = "") -> str | None:
        found = self.points(machine)
        return chance.choice(found) if found else None


def machine_of(label: str) -> str:
    return label.rpartition("@")[0]


def number(label: str) -> int:
    return int(label.rpartition("@")[2])
