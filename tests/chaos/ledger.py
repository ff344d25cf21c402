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
    """Points by label, `web@3`. Written by all actors at once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.contents: dict[str, Content] = {}
        """By the tag of an export: what was on the disks when it began."""
        self._tags: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self._gone: list[str] = []
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
            self.counts["points committed"] += 1

    def points(self, machine: str = "") -> list[str]:
        """Labels of committed points that nobody tried to forget, oldest first within a machine."""
        with self._lock:
            found = [label for label in self._tags if label not in self._doubtful]
        return sorted((label for label in found if not machine or label.startswith(f"{machine}@")), key=number)

    def content(self, label: str) -> Content:
        with self._lock:
            return self.contents[self._tags[label]]

    def tag(self, label: str) -> str:
        with self._lock:
            return self._tags[label]

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
            self._doubtful.update(labels)
            new = [label for label in labels if label not in self._gone]
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


def number(label: str) -> int:
    return int(label.rpartition("@")[2])
