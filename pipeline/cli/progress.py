"""Showing how far a transfer is: a bar on a terminal, a line now and then in a log, JSON lines for a program.

The pipeline only leaves its counters here; a thread looks at them a few times a second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from pipeline.units import duration, share, size

if TYPE_CHECKING:
    from pipeline.cli.output import Output
    from pipeline.progress import Counters

BAR_SECONDS = 0.25
JSON_SECONDS = 1.0
LINE_SECONDS = 30.0
_WINDOW_SECONDS = 10.0
_BAR_WIDTH, _NAME_WIDTH = 16, 16


class View(Protocol):
    """Shows counters."""

    interval: float

    def show(self, counters: Counters, speed: float, left: float | None) -> None: ...

    def clear(self) -> None: ...


class Meter:
    """A Watch: remembers the newest counters of every disk, and how fast they grow."""

    def __init__(self) -> None:
        self.all: list[Counters] = []
        self._seen: deque[tuple[float, int]] = deque()
        self._measured: Counters | None = None
        self._began = 0.0

    def __call__(self, counters: Counters) -> None:
        if not self.all or self.all[-1] is not counters:
            self._began = time.monotonic()
            self.all.append(counters)

    def measure(self) -> tuple[Counters, float, float | None] | None:
        """The counters, bytes a second lately, and the seconds left (None: nobody knows)."""
        if not self.all:
            return None
        counters = self.all[-1]
        now = time.monotonic()
        if counters is not self._measured:
            self._measured = counters
            self._seen.clear()
            self._seen.append((self._began, 0))
        self._seen.append((now, counters.done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        speed = (counters.done - before) / (now - then) if now > then else 0.0
        left = (counters.total - counters.done) / speed if speed > 0 else None
        return counters, speed, left


@contextmanager
def shown(output: Output) -> Iterator[Meter]:
    """A Meter to hand to a pipeline; what it sees is shown until the end."""
    meter = Meter()
    view = _view(output)
    if view is None:
        yield meter
        return
    done = threading.Event()

    def tick() -> None:
        while not done.wait(view.interval):
            if (found := meter.measure()) is not None:
                view.show(*found)

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    output.before = view.clear
    thread.start()
    try:
        yield meter
    finally:
        done.set()
        thread.join()
        view.clear()
        output.before = lambda: None


def _view(output: Output) -> View | None:
    if output.quiet:
        return None
    if output.as_json:
        return JsonLines(output)
    return Bar() if sys.stderr.isatty() else Lines()


class JsonLines:
    """One object a second."""

    interval = JSON_SECONDS

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, counters: Counters, speed: float, left: float | None) -> None:
        self._output.event(
            "progress",
            **counter_values(counters),
            bytes_per_second=round(speed),
            seconds_left=None if left is None else round(left, 1),
        )

    def clear(self) -> None:
        """Lines stay."""


class Lines:
    """A plain line every half minute, for logs of cron."""

    interval = LINE_SECONDS

    def show(self, counters: Counters, speed: float, left: float | None) -> None:
        sys.stderr.write(f"{sentence(counters, speed, left)}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Lines stay."""


class Bar:
    """A bar that is drawn over itself."""

    interval = BAR_SECONDS

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._lock = threading.RLock()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, text="")
        self._running = False

    def show(self, counters: Counters, speed: float, left: float | None) -> None:
        with self._lock:
            width = self._bar.console.width - _BAR_WIDTH - 3
            name = f"{counters.phase} {_short(counters.disk) if counters.total else counters.disk}"
            name = name if len(name) <= width else f"{name[: width - 1]}…"
            room = width - len(name)
            self._bar.update(
                self._task,
                description=name,
                total=counters.total or None,
                completed=counters.done,
                text=_figures(counters, speed, left, room),
            )
            if not self._running:
                self._running = True
                self._bar.start()
            self._bar.refresh()

    def clear(self) -> None:
        """Take the bar off the screen; the next `show` draws it again."""
        with self._lock:
            if self._running:
                self._running = False
                self._bar.stop()


def sentence(counters: Counters, speed: float, left: float | None) -> str:
    """How far it is, in one line."""
    figures = _figures(counters, speed, left)
    return f"{counters.phase} {counters.disk}" + (f": {figures}" if figures else "")


def counter_values(counters: Counters) -> dict[str, str | int]:
    """All counters, for JSON."""
    return {name: getattr(counters, name) for name in counters.__slots__}


def _figures(counters: Counters, speed: float, left: float | None, room: int = 1000) -> str:
    """As many figures as `room` letters hold, the most wanted first; none where it is not about bytes."""
    if not counters.total:
        return ""
    parts = [
        share(counters.done, counters.total),
        f"{size(speed)}/s",
        f"{duration(left)} left" if left is not None else "",
        f"sent {size(counters.sent)}" if counters.sent else "",
        f"written {size(counters.written)}" if counters.written else "",
        f"read {size(counters.read)}" if counters.read else "",
        f"deduplicated {size(counters.deduplicated)}" if counters.deduplicated else "",
        f"{size(counters.total)} in all",
    ]
    text = ""
    for part in filter(None, parts):
        longer = f"{text}, {part}" if text else part
        if len(longer) > room:
            break
        text = longer
    return text


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else "…" + name[1 - _NAME_WIDTH :]
