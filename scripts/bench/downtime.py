"""Downtime: machines whose disks hold more and more data come home by a run, with equal changes at the end."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench import facts, tool
from scripts.bench.checks import Check
from scripts.bench.difference import CHUNK
from scripts.bench.extents import Extent
from scripts.bench.files import settle
from scripts.bench.ground import Ground, undisturbed
from scripts.bench.image import GIB
from scripts.bench.measure import Command, run
from scripts.bench.noise import noise
from scripts.bench.running import READY, Running, end_all
from scripts.bench.server import BUCKET, CREDENTIALS, DIRECT, Minio
from scripts.bench.step import Mismatch
from scripts.bench.table import aligned
from scripts.bench.touch import touch_free_memory

TENTH, STEADY = 0.1, 0.25
"""Parts of the smallest disk's downtime: what the largest one's may be longer even where repeats agree to the
millisecond, and how much repeats may differ before they tell nothing."""
WITH, WITHOUT = "with", "without"
MODES = {WITH: "changed blocks", WITHOUT: "incremental"}
"""How the last point has to be exported, so that it is what it is called."""
STEPS = ("quiesce", "final", "stop", "prove", "lock", "set", "refresh", "own", "boot")
PARTS = {
    "final": ("moment", "begin", "plan", "read", "index", "commit", "keep", "export", "release"),
    "refresh": ("preflight", "find", "stage"),
    "boot": ("preflight", "find", "stage", "build", "confirm", "boot"),
}
"""Of these steps; what they leave is the conductor's: its journal, and looks at who may run the machine."""
_ASKS, _UNDONE = 15, 17
_HARDWARE: dict[str, Any] = {"cpus": 1, "memory": "32M"}


@dataclass(frozen=True)
class Wish:
    """`sizes`: bytes of the disks, all of them data, the smallest first. `repeats` with a change map, `contrast`
    without."""

    sizes: tuple[int, ...]
    changed: int
    repeats: int
    contrast: int
    seed: int


@dataclass(frozen=True)
class Down:
    """One cutover. `seconds`: from the source about to be stopped to the machine switched on at home, by the journal of
    the run, whose times are the store's. `steps` add up to it; `parts` are what effects tell of their insides."""

    size: int
    way: str
    seconds: float
    steps: dict[str, float]
    parts: dict[str, dict[str, float]]
    until_verified: float
    written: int


@dataclass
class Downtimes:
    """All cutovers, in their order."""

    sizes: tuple[int, ...]
    changed: int
    found: list[Down] = field(default_factory=list)
    machine: dict[str, object] = field(default_factory=facts.machine)

    def table(self) -> str:
        """A line for each step, and indented what it says of its inside: medians."""
        columns = [(way, size) for way in (WITH, WITHOUT) for size in self.sizes if self._of(way, size)]
        rows = [("seconds of", "", *(f"{size / GIB:g} GiB {way}" for way, size in columns))]

        def row(name: str, indent: str, figure: Callable[[Down], float]) -> None:
            rows.append((f"{indent}{name}", "", *(f"{median(map(figure, self._of(*c))):.2f}" for c in columns)))

        for step in dict.fromkeys(step for down in self.found for step in down.steps):
            row(step, "", lambda down, step=step: down.steps.get(step, 0.0))
            for part in dict.fromkeys(part for down in self.found for part in down.parts.get(step, {})):
                row(part, "  ", lambda down, step=step, part=part: down.parts.get(step, {}).get(part, 0.0))
        row("in all", "", lambda down: down.seconds)
        spans = [sorted(down.seconds for down in self._of(*column)) for column in columns]
        rows.append(("least to most", "", *(f"{span[0]:.2f} to {span[-1]:.2f}" for span in spans)))
        row("and until its check passed", "", lambda down: down.until_verified)
        lines = [aligned(rows)]
        for way in (WITH, WITHOUT):
            if len(self._sizes(way)) > 1:
                lines.append(f"{way} a change map: {self.slope(way):+.3f} s for each GiB of data")
        return "\n".join(lines)

    def slope(self, way: str) -> float:
        """Seconds for each GiB, by least squares over all cutovers."""
        points = [(down.size / GIB, down.seconds) for down in self.found if down.way == way]
        x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
        return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)

    def noise(self, way: str) -> float:
        """Seconds by which repeats of one size differ at most."""
        spans = [[down.seconds for down in self._of(way, size)] for size in self._sizes(way)]
        return max(max(span) - min(span) for span in spans)

    def longer(self, way: str) -> float:
        """Seconds that the largest disk takes longer than the smallest."""
        small, large = (median(down.seconds for down in self._of(way, self._sizes(way)[end])) for end in (0, -1))
        return large - small

    def checks(self) -> list[Check]:
        """The promise; and that this measurement sees a slope where there is one. More than a tenth is excused by
        repeats of one size that differ as much, unless they differ by so much that nothing is known."""
        small, large = (f"{self.sizes[end] / GIB:g} GiB" for end in (0, -1))
        first = median(down.seconds for down in self._of(WITH, self.sizes[0]))
        noise, longer = self.noise(WITH), self.longer(WITH)
        limit = max(noise, TENTH * first)
        figure = f"{longer:+.2f} s of {first:.2f} s; repeats differ by {noise:.2f} s"
        promise = f"with a change map {large} take as long as {small}, within a tenth"
        excused = None if noise > STEADY * first else True
        met = True if abs(longer) <= TENTH * first else excused if abs(longer) <= noise else False
        found = [Check(promise, figure, met)]
        if len(self._sizes(WITHOUT)) > 1:
            promise = f"without one {large} take longer, by more than that"
            figure = f"{self.longer(WITHOUT):+.2f} s, {self.slope(WITHOUT):+.3f} s a GiB"
            found.append(Check(promise, figure, self.longer(WITHOUT) > limit))
        return found

    def write(self, path: Path) -> None:
        """All figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    def _of(self, way: str, size: int) -> list[Down]:
        return [down for down in self.found if (down.way, down.size) == (way, size)]

    def _sizes(self, way: str) -> list[int]:
        return [size for size in self.sizes if self._of(way, size)]


def downtime(ground: Ground, wish: Wish) -> Downtimes:
    """Bring each machine home and back again, in turn. Raises CommandFailed, Mismatch."""
    found = Downtimes(wish.sizes, wish.changed)
    with _site(ground) as site:
        made = [_Machine(site, size, wish, wish.seed + n) for n, size in reversed([*enumerate(wish.sizes)])]
        machines = made[::-1]  # the largest is made first: what it needs besides its disks is free again then
        for number in range(wish.repeats):
            for way in (WITH, WITHOUT) if number < wish.contrast else (WITH,):
                # Each size is first in its turn: what a round does to the machine hits all of them.
                for place in range(len(machines)):
                    machine = machines[(place + number) % len(machines)]
                    down = machine.comes_home(way, wish.seed + 1000 * (len(found.found) + 1))
                    print(
                        f"{down.size / GIB:g} GiB {way} a change map: {down.seconds:.2f} s: {_shown(down.steps)}",
                        flush=True,
                    )
                    found.found.append(down)
    return found


@dataclass(frozen=True)
class _Site:
    """A repository on MinIO, and one host that is both sides."""

    ground: Ground
    minio: Minio

    @property
    def state(self) -> Path:
        return self.ground.restores / "state"

    def empty_packs(self) -> None:
        """What is staged is not fetched again: its packs stay as holes. The server would notice if one was read."""
        for part in (self.minio.objects / "disks" / "packs").rglob("part.1"):
            size = part.stat().st_size
            os.truncate(part, 0)
            os.truncate(part, size)

    def failback(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a command; its result. Raises CommandFailed."""
        answer = self.ground.scratch / "answer.json"
        environment = {
            **CREDENTIALS,
            **DIRECT,
            "FAILBACK_REPOSITORY": f"s3://{BUCKET}/disks?endpoint={self.minio.endpoint}",
            "FAILBACK_STATE_DIR": str(self.state),
            "FAILBACK_KEY_FILE": str(self.ground.scratch / "key"),
        }
        command = Command([*tool.failback(), *arguments, "--json", "--quiet"], environment)
        run(command, self.ground.log, answer=answer, codes=codes)
        result: dict[str, Any] = json.loads(answer.read_text().splitlines()[-1])
        return result


@contextmanager
def _site(ground: Ground) -> Iterator[_Site]:
    """No machine is left at the end, on neither side."""
    with ExitStack() as stack:
        site = _Site(ground, stack.enter_context(Minio(ground.store / "minio")))
        stack.callback(_end, ground)
        site.failback("repository", "init")
        yield site


def _end(ground: Ground) -> None:
    with undisturbed():
        end_all(ground.image.parent, ground.restores)


class _Machine:
    """Runs at the takeover site, and is staged at home, between two cutovers."""

    def __init__(self, site: _Site, size: int, wish: Wish, seed: int) -> None:
        self._site, self._count, self.name = site, wish.changed, f"disk-{size >> 20}"
        begun = time.monotonic()
        self._running = Running(site.ground.image.parent / self.name, size, seed=seed)
        filled = time.monotonic() - begun
        self._plan = site.ground.scratch / f"{self.name}.yaml"
        self._plan.write_text(json.dumps(self._document()))
        self._start()
        site.empty_packs()
        print(f"{self.name} was filled in {filled:.1f} s, is staged after {time.monotonic() - begun:.1f} s", flush=True)
        self._waits = True

    def comes_home(self, way: str, seed: int) -> Down:
        """As the last point has it, changed after it was staged; then back again, and what home had is compared."""
        if not self._waits:
            self._start()
        extents = self._running.change(self._count, seed=seed)
        if way == WITHOUT:
            self._running.forget_changes()
        settle(self._site.ground.image.parent, self._site.ground.store, self._site.ground.restores)
        touch_free_memory(1 << 30)
        shown = self._site.failback("run", "approve", self._run, "--by", "benchmark", codes=(_ASKS,))
        down = self._down(way, shown)
        self._compare(extents, seed)
        back = ("run", "rollback", self._run, "--discard", "--by", "benchmark")
        self._site.failback(*back, codes=(_UNDONE,))
        self._waits = False
        return down

    def _start(self) -> None:
        """A run that exports, stages, and asks before it touches the takeover side."""
        self._run = str(self._site.failback("run", "start", str(self._plan), codes=(_ASKS,))["run"])

    def _document(self) -> dict[str, Any]:
        check = {"name": "up", "hook": "console", "settings": {"text": READY}}
        source = {"folder": str(self._running.folder), "hardware": _HARDWARE}
        return {
            "name": self.name,
            "target": "qemu",
            "mapping": {"networks": {"*": {"name": "user"}}, "options": {"qemu": {"accelerator": "tcg"}}},
            "source": {"kind": "qemu"},
            "machines": {self.name: {"source": source, "checks": [check]}},
            "groups": [{"name": "all", "waves": [[self.name]]}],
            "approvals": {"cutover": True, "gate": False, "commit": True},
        }

    def _down(self, way: str, shown: dict[str, Any]) -> Down:
        [group] = shown["groups"]
        results = {verb: shown["effects"][f"{verb}/{self.name}"]["result"] for verb in ("final", "refresh", "boot")}
        [disk] = results["final"]["disks"]
        if disk["mode"] != MODES[way]:
            raise Mismatch(f"{self.name}: the last point is {disk['mode']} and not {MODES[way]}: {disk['reason']}")
        took = group["downtime"]["steps"]
        steps = {verb: took[verb] for verb in STEPS}
        seconds = sum(steps.values())
        verified = took["verify"]
        parts = {verb: {n: result["steps"][n] for n in PARTS[verb]} for verb, result in results.items()}
        return Down(self._running.size, way, seconds, steps, parts, seconds + verified, results["refresh"]["written"])

    def _compare(self, extents: list[Extent], seed: int) -> None:
        """What is staged at home, below the layer that the machine writes to."""
        found = (self._site.state / "targets" / "qemu").rglob("stage/disk0.raw")
        [staged] = [path for path in found if path.stat().st_size == self._running.size]
        with open(staged, "rb", buffering=0) as disk:
            for extent in extents:
                if os.pread(disk.fileno(), extent.length, extent.offset) != noise(seed, extent.offset, CHUNK):
                    raise Mismatch(f"{staged} has not what was written at byte {extent.offset}")


def _shown(steps: dict[str, float]) -> str:
    return ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
