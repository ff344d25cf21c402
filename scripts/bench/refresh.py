"""Refresh: from a point committed to its machine switched on at a stand-in for vSphere, on a small and a large disk."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from scripts.bench import corpus, facts
from scripts.bench.apart import apart
from scripts.bench.difference import CHUNK
from scripts.bench.extents import Extent, write_extents
from scripts.bench.files import settle
from scripts.bench.ground import Ground
from scripts.bench.image import GIB
from scripts.bench.measure import Figures
from scripts.bench.sparse import change_chunks, make_sparse
from scripts.bench.step import Mismatch
from scripts.bench.table import aligned
from scripts.bench.touch import touch_free_memory
from scripts.bench.verdict import Bound
from scripts.bench.vsphere import NETWORK, Home, home

MIB = 1 << 20
LINK = 100_000_000
"""Bytes a second that the host takes of an upload."""
WITHIN, MOST_WRITTEN, OF_BULK, MOST_MEMORY = 1.2, 1.1, 1 / 3, 256
BETWEEN, REST = "until the command", "rest"
"""Steps that the product cannot see: what the export and whoever starts the import take, interpreter and the like."""


@dataclass(frozen=True)
class Wish:
    """What to measure. `disks`: (size, data) in bytes, the small one first. `side_by_side` disks with `each` bytes of
    data are uploaded in one import. `rest`: seconds that the agent is left alone before an export."""

    disks: tuple[tuple[int, int], ...]
    changed: int
    repeats: int
    staged_by: str
    side_by_side: int
    each: int
    rest: float
    seed: int


@dataclass(frozen=True)
class Refreshed:
    """One later point brought home: seconds until the machine was on, in all and by step; bytes."""

    seconds: float
    steps: dict[str, float]
    written: int
    changed: int
    peak: int


@dataclass(frozen=True)
class Uploaded:
    """A machine imported as a whole and switched on: seconds from the start of the command; bytes of memory."""

    seconds: float
    data: int
    disks: int
    peak: int
    steps: dict[str, float]


@dataclass
class Refreshes:
    """What was measured, disk by disk."""

    sizes: tuple[int, ...]
    staged_by: str
    rounds: list[tuple[Refreshed, ...]] = field(default_factory=list)
    bulk: Uploaded | None = None
    """The larger disk, over a link of LINK."""
    several: Uploaded | None = None
    """Disks side by side, as fast as it goes."""
    machine: dict[str, object] = field(default_factory=facts.machine)

    def table(self) -> str:
        """A line for each step: medians."""
        disks = range(len(self.sizes))
        steps = dict.fromkeys(step for each in self.rounds for one in each for step in one.steps)
        rows = [("seconds of", "", *(f"{size / GIB:g} GiB disk" for size in self.sizes))]
        for step in steps:
            rows.append((step, "", *(f"{self._median(i, step):.2f}" for i in disks)))
        whole = [sorted(each[i].seconds for each in self.rounds) for i in disks]
        rows.append(("in all", "", *(f"{median(w):.2f}" for w in whole)))
        rows.append(("least to most", "", *(f"{w[0]:.2f} to {w[-1]:.2f}" for w in whole)))
        written = [max(each[i].written / each[i].changed for each in self.rounds) for i in disks]
        rows.append(("bytes written by changed", "", *(f"{w:.3f}" for w in written)))
        lines = [aligned(rows)]
        for name, one in (("as a whole, slow link", self.bulk), ("as a whole, side by side", self.several)):
            if one is not None:
                lines.append(
                    f"{name}: {one.disks} disk(s), {one.data / GIB:g} GiB of data, {one.seconds:.1f} s, "
                    f"{one.peak / MIB:.0f} MiB"
                )
        return "\n".join(lines)

    def bounds(self) -> list[Bound]:
        """The promises."""
        small, large = (median(each[i].seconds for each in self.rounds) for i in (0, -1))
        written = max(one.written / one.changed for each in self.rounds for one in each)
        bounds = [
            Bound("time, large disk by small,", large / small, WITHIN),
            Bound("time, small disk by large,", small / large, WITHIN),
            Bound("bytes written by those of changed chunks,", written, MOST_WRITTEN),
        ]
        if self.bulk is not None:
            bounds.append(Bound("time by that of the bulk path,", large / self.bulk.seconds, OF_BULK))
        peaks = [one.peak for one in (self.bulk, self.several) if one is not None]
        if peaks:
            bounds.append(Bound("memory of the bulk path", max(peaks) / MIB, MOST_MEMORY, " MiB"))
        return bounds

    def write(self, path: Path) -> None:
        """All figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    def _median(self, disk: int, step: str) -> float:
        return median(each[disk].steps.get(step, 0.0) for each in self.rounds)


def refresh(ground: Ground, wish: Wish) -> Refreshes:
    """Stage both disks; then change, export and import each in turn; then the bulk path. Raises CommandFailed,
    Mismatch."""
    refreshes = Refreshes(tuple(size for size, _ in wish.disks), wish.staged_by)
    with home(ground) as site:
        disks = [_Disk(site, f"disk-{size / GIB:g}", size, data, wish) for size, data in wish.disks]
        for number in range(1, wish.repeats + 1):
            refreshes.rounds.append(tuple(disk.refreshed(wish.seed + number) for disk in disks))
        large, data = disks[-1].machine, wish.disks[-1][1]
        site.vanish(large)
        site.server.set_host(rate=LINK)
        refreshes.bulk = _uploaded(site, large, data, 1)
        site.server.set_host(rate=0)
        if wish.side_by_side:
            refreshes.several = _several(site, ground, wish)
    return refreshes


class _Disk:
    """A machine with one disk, staged and off between the rounds.

    Its image is emptied when it was exported: later exports read nothing but what is named as changed.
    """

    def __init__(self, site: Home, machine: str, size: int, data: int, wish: Wish) -> None:
        self.machine = machine
        self._site, self._count, self._rest = site, wish.changed, wish.rest
        self._image = site.ground.image.with_name(f"{machine}.raw")
        apart(make_sparse, self._image, size, data, roots=corpus.default_roots(), seed=wish.seed)
        _export(site, machine, [self._image])
        os.truncate(self._image, 0)
        os.truncate(self._image, size)
        with site.agent_running():
            figures, result = site.come(machine, worker=wish.staged_by == "worker")
            site.go(machine)
        print(
            f"{machine} is staged by {wish.staged_by}, in {figures.wall:.1f} s: {_shown(result['steps'])}", flush=True
        )

    def refreshed(self, seed: int) -> Refreshed:
        """Change it, export, import until it is on; then off again, and the disk compared."""
        site, listed = self._site, self._site.ground.scratch / "changes.json"
        extents = change_chunks(self._image, self._count, seed=seed)
        write_extents(listed, extents)
        settle(site.ground.image.parent, site.ground.store, site.ground.restores)
        touch_free_memory(1 << 30)
        with site.agent_running():
            time.sleep(self._rest)
            _export(site, self.machine, [self._image], "--changes", str(listed), "--changes-since", "latest")
            begun = time.time()
            figures, result = site.come(self.machine, worker=True)
            committed, on = site.committed(self.machine), site.started(self.machine)
            site.go(self.machine)
        self._compare(extents)
        steps = {BETWEEN: begun - committed, **result["steps"]}
        steps[REST] = on - committed - sum(steps.values())
        done = Refreshed(on - committed, steps, result["written"], self._count * CHUNK, _peak(figures))
        print(f"{self.machine}: {done.seconds:.2f} s: {_shown(steps)}", flush=True)
        return done

    def _compare(self, extents: list[Extent]) -> None:
        [there] = self._site.disks(self.machine)
        with open(self._image, "rb", buffering=0) as wanted, open(there, "rb", buffering=0) as found:
            for extent in extents:
                one, other = (os.pread(f.fileno(), extent.length, extent.offset) for f in (wanted, found))
                if one != other:
                    raise Mismatch(f"{there} differs from {self._image} at byte {extent.offset}")


def _several(site: Home, ground: Ground, wish: Wish) -> Uploaded:
    """Disks that are uploaded side by side."""
    images = [ground.image.with_name(f"several-{number}.raw") for number in range(wish.side_by_side)]
    for number, image in enumerate(images):
        apart(make_sparse, image, 2 * wish.each, wish.each, roots=corpus.default_roots(), seed=wish.seed + number)
    _export(site, "several", images)
    for image in images:
        image.unlink()
    return _uploaded(site, "several", wish.each * len(images), len(images))


def _uploaded(site: Home, machine: str, data: int, disks: int) -> Uploaded:
    settle(site.ground.store, site.ground.restores)
    begun = time.time()
    figures, result = site.come(machine, worker=False)
    done = Uploaded(site.started(machine) - begun, data, disks, _peak(figures), result["steps"])
    print(f"{machine} came as a whole in {done.seconds:.1f} s, {done.peak / MIB:.0f} MiB", flush=True)
    site.go(machine)
    site.vanish(machine)
    return done


def _export(site: Home, machine: str, images: list[Path], *more: str) -> None:
    disks = [word for image in images for word in ("--disk", str(image))]
    site.failback("export", machine, *disks, *_HARDWARE, *more)


def _shown(steps: dict[str, float]) -> str:
    return ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())


def _peak(figures: Figures) -> int:
    return max(figures.peak_largest, figures.peak_sum)


_HARDWARE = ("--cpus", "2", "--memory", "512M", "--nic", f"network={NETWORK}")
