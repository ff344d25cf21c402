"""Writers, collectors and people who forget, on one simulated bucket, in an order that a seed chooses.

All code that decides anything is the product's. What must hold is checked at every change of the bucket: nothing that a
committed and not forgotten point needs is deleted, and no point is committed that lacks something.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st
from simulators.baton import Client, Fate, Inline
from simulators.shared_store import Bucket, View
from transfer.support import CHUNK, FakeDisk, FakeTarget

from manifests.entry import ID_SIZE
from manifests.machine import Machine
from manifests.names import pack_key, page_key
from manifests.tree import disk_digest, leaf
from pipeline.catalogue import Point, forget, load
from pipeline.collect.collector import Collection
from pipeline.collect.recall import recall
from pipeline.errors import CorruptObject, FailbackError
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.store.retry import Backoff, RetryStore
from pipeline.transfer.export import export_machine
from pipeline.transfer.export_request import DiskSource, ExportOptions
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.process import Process
from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.stage import Stage
from pipeline.verify.listing import verify_listing

CHUNKS = 5
HOUR = timedelta(hours=1)
JUMPS = (HOUR / 30, HOUR / 3, 2 * HOUR, 2 * HOUR, 25 * HOUR)
TROUBLES: dict[str, tuple[Fate, ...]] = {
    "put": ("refused", "lost", "held", "twice", "killed before", "killed after"),
    "delete": ("refused", "lost", "held", "twice", "killed before", "killed after"),
    "get": ("refused", "killed before"),
    "head": ("refused", "killed before"),
    "list": ("refused", "killed before", "stale"),
}
TOO_MANY_STEPS = 20_000
SHARED_MEMORY = Path("/dev/shm")
VERSION = cache(version)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who takes part. Hypothesis makes it smaller when something was lost; `seed` chooses the order of events."""

    seed: int
    writers: tuple[tuple[str, str], ...] = (("vm", "a"),)
    """Machine and host of each."""
    collectors: int = 1
    forgets: int = 0
    recalls: int = 0
    grace: int = 1
    """Hours."""
    sticky: float = 0.5
    """How probably the client that ran last goes on."""
    trouble: float = 0.02
    """How probably a request has another fate than to be done."""
    jump: float = 0.03
    """How probably time passes between two requests."""
    retries: bool = True


SCENARIOS = st.builds(
    Scenario,
    seed=st.integers(0, 2**32 - 1),
    writers=st.lists(st.sampled_from([("vm", "a"), ("vm", "b"), ("db", "a"), ("db", "c")]), min_size=1, max_size=3).map(
        tuple
    ),
    collectors=st.integers(1, 2),
    forgets=st.integers(0, 2),
    recalls=st.integers(0, 1),
    grace=st.sampled_from((1, 1, 24)),
    sticky=st.sampled_from((0.0, 0.5, 0.9, 0.97)),
    trouble=st.sampled_from((0.0, 0.01, 0.05)),
    jump=st.sampled_from((0.01, 0.03, 0.1)),
    retries=st.booleans(),
)


def scenario_of(seed: int) -> Scenario:
    """One of them all, without hypothesis: the same one for the same seed."""
    chance = random.Random(seed)
    return Scenario(
        seed,
        writers=tuple(chance.choices((("vm", "a"), ("vm", "b"), ("db", "a"), ("db", "c")), k=chance.randint(1, 3))),
        collectors=chance.randint(1, 2),
        forgets=chance.randint(0, 2),
        recalls=chance.randint(0, 1),
        grace=chance.choice((1, 1, 24)),
        sticky=chance.choice((0.0, 0.5, 0.9, 0.97)),
        trouble=chance.choice((0.0, 0.01, 0.05)),
        jump=chance.choice((0.01, 0.03, 0.1)),
        retries=chance.random() < 0.5,
    )


class Lost(AssertionError):
    """Something that a point needs is gone."""


@dataclass(slots=True)
class Known:
    """What the test knows of a point."""

    needs: frozenset[str]
    content: dict[int, bytes]


class World:
    """One run of a scenario. `counts` gets what came of each client."""

    def __init__(self, scenario: Scenario, root: Path, counts: Counter[str] | None = None) -> None:
        self.scenario, self.root = scenario, root
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.random = random.Random(scenario.seed)
        self.bucket = Bucket(scenario.seed)
        self.repository = Repository.init(View(self.bucket), chunk_size=CHUNK)
        self.bucket.changed = self._changed
        self.points: dict[str, Known] = {}
        """By key of the manifest: committed, and not forgotten."""
        self.contents: dict[str, dict[int, bytes]] = {}
        """By the disk's digest: what a writer had on its disk."""
        self.disks: dict[str, dict[int, bytes]] = {}
        self.clients: list[Client] = []
        self.lost: list[str] = []
        self.way: list[str] = []
        self.made = 0

    # -- the clients -------------------------------------------------------------------------------------------------

    def writer(self, machine: str, host: str) -> None:
        disk = dict(self.disks.get(machine, {}))
        for _ in range(self.random.randint(1, 3)):
            disk[self.random.randrange(CHUNKS)] = self.random.randbytes(16) * (CHUNK // 16)
        if self.random.random() < 0.2:
            disk.pop(self.random.choice(sorted(disk)))
        self.disks[machine] = disk

        def export(client: Client) -> None:
            source = FakeDisk(CHUNKS * CHUNK, {n * CHUNK: data for n, data in disk.items()})
            options = ExportOptions(state=self.root / host, workers=1, uploads=1, memory=1 << 20)
            self.contents[_digest_of(disk, self.repository)] = disk
            export_machine(self.seen_by(client), Machine(name=machine), [DiskSource(source, "disk0")], options)

        self._start(f"writer of {machine} on {host}", host, export)

    def collector(self) -> None:
        grace = timedelta(hours=self.scenario.grace)
        self._start("collector", "c", lambda c: Collection(self.seen_by(c), grace=grace, apply=True, parallel=1).run())

    def forgetter(self) -> None:
        which = self.random.random()

        def work(client: Client) -> None:
            known = sorted(self.points)
            point = self._load(known[int(which * len(known))], self.seen_by(client)) if known else None
            if point is not None:
                forget(self.seen_by(client), point, reason="test")

        self._start("forget", "d", work)

    def recaller(self) -> None:
        which = self.random.random()

        def work(client: Client) -> None:
            gone = [key for key in self.bucket.keys if key.startswith("tombstones/")]
            if gone:
                _, machine, sequence = gone[int(which * len(gone))].split("/")
                recall(self.seen_by(client), machine, int(sequence))

        self._start("unforget", "d", work)

    def seen_by(self, client: Client) -> Repository:
        view: Store = View(self.bucket, client)
        if self.scenario.retries:
            view = RetryStore(view, Backoff(first=0.0, sleep=lambda _seconds: None, clock=lambda: 0.0))
        return Repository(view, self.repository.document)

    def _start(self, name: str, host: str, work: Callable[[Client], object]) -> None:
        self.made += 1
        self.clients.append(Client(f"{name} ({self.made})", host, self.made, work))

    def runs(self, number: int) -> int | None:
        """Start time of a simulated process, as the product asks for it."""
        return number if any(c.number == number and c.alive for c in self.clients) else None

    # -- what must hold ----------------------------------------------------------------------------------------------

    def _changed(self, key: str, there: bool) -> None:
        kind, _, rest = key.partition("/")
        if kind == "manifests" and there:
            if f"tombstones/{rest}" not in self.bucket.objects and (point := self._load(key)) is not None:
                content = self.contents.get(point.manifest.disks[0].digest)
                if content is None:
                    self.lost.append(f"{key} is of a disk that nobody had")
                self.points[key] = Known(self._needs(key, point), content or {})
        elif kind == "tombstones" and there:
            self.points.pop(f"manifests/{rest}", None)
        elif kind in ("packs", "pages", "manifests") and not there:
            self.lost += [f"{key}, needed by {name}" for name, known in self.points.items() if key in known.needs]

    def _needs(self, key: str, point: Point) -> frozenset[str]:
        disk = point.manifest.disks[0]
        try:
            pages = [page_key(page) for page in IndexReader(self.repository, disk).objects()]
            packs = [pack_key(pack) for pack in packs_of(self.repository, disk)]
        except CorruptObject as error:
            self.lost.append(f"{key} was committed, and {error.message}")
            return frozenset()
        needs = frozenset((key, *pages, *packs))
        self.lost += [f"{key} was committed without {need}" for need in sorted(needs - self.bucket.objects.keys())]
        return needs

    def _load(self, key: str, repository: Repository | None = None) -> Point | None:
        _, machine, sequence = key.split("/")
        return load(repository or self.repository, machine, int(sequence))

    def restore(self) -> None:
        """Every point, bit for bit, to a new disk."""
        for key, known in sorted(self.points.items()):
            point = self._load(key)
            assert point is not None
            report = verify_listing(self.repository, point)
            assert report.ok, (key, report.problems)
            target = FakeTarget(CHUNKS * CHUNK)
            stage = Stage(self.root / "stages" / f"{self.random.random()}")
            DiskRestore(self.repository, point, point.manifest.disks[0], target, stage, parallel=1).run()
            expected = b"".join(known.content.get(n, bytes(CHUNK)) for n in range(CHUNKS))
            got = bytearray(CHUNKS * CHUNK)
            target.read_into(0, memoryview(got))
            assert bytes(got) == expected, f"{key} came back with other bytes"

    # -- the order of events -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises Lost, with the way there in `way`."""
        quiet = replace(self.scenario, trouble=0.0, jump=0.0)
        plan, self.scenario = self.scenario, quiet
        for machine in sorted({m for m, _host in plan.writers}):
            for _ in range(self.random.randint(1, 2)):
                self.writer(machine, "a")
                self.drain()
        self.bucket.now += 3 * HOUR
        self.scenario = plan
        for machine, host in plan.writers:
            self.writer(machine, host)
        for many, start in (
            (plan.collectors, self.collector),
            (plan.forgets, self.forgetter),
            (plan.recalls, self.recaller),
        ):
            for _ in range(many):
                start()
        try:
            self.drain(again=3)
            self.restore()
            self._settle()
        finally:
            self._stop()

    def drain(self, again: int = 0) -> None:
        """Until all clients came to their ends; up to `again` of those that failed start anew."""
        last: Client | None = None
        for _ in range(TOO_MANY_STEPS):
            waiting = [c for c in self.clients if not c.done]
            if not waiting:
                return
            self._meanwhile(waiting)
            if last is None or last.done or self.random.random() >= self.scenario.sticky:
                last = self.random.choice(waiting)
            self._step(last)
            if last.done:
                self._judge(last)
                if last.outcome != "done" and again and " of " in last.name and self.random.random() < 0.7:
                    again -= 1
                    machine, host = last.name.split()[2], last.host
                    self.writer(machine, host if self.random.random() < 0.7 else "b")
                elif last.outcome != "done" and again and last.name.startswith("collector"):
                    again -= 1
                    self.collector()
        raise AssertionError(f"not at the end after {TOO_MANY_STEPS} requests: {self.way[-20:]}")

    def _meanwhile(self, waiting: list[Client]) -> None:
        bucket = self.bucket
        if self.random.random() < self.scenario.jump:
            jump = self.random.choice(JUMPS)
            bucket.now += jump
            self.way.append(f"{jump} pass")
            for client in waiting:
                if self.random.random() < 0.5:
                    self._beat(client)
        if bucket.held and self.random.random() < 0.1:
            self.way.append("a request that was held back is carried out")
            bucket.release(self.random.randrange(len(bucket.held)))
            self._check()

    def _beat(self, client: Client) -> None:
        """What the session's heart does once a minute, as long as it is open."""
        for session in sorted(client.announced):
            run = session.rpartition("/")[0]
            if session in self.bucket.objects and f"{run}/ended" not in self.bucket.objects:
                self.bucket.put(f"{run}/heartbeat", b"beat", create=False)
                self.way.append(f"{client.name} gives a sign")

    def _step(self, client: Client) -> None:
        verb, key = client.request
        fate: Fate = "done"
        if verb in TROUBLES and self.random.random() < self.scenario.trouble:
            fate = self.random.choice(TROUBLES[verb])
            if fate == "stale" and key not in ("packs/", "pages/"):
                fate = "done"
        self.way.append(f"{client.name}: {verb} {key} {fate}")
        client.step(fate)
        self._check()

    def _check(self) -> None:
        if self.lost:
            raise Lost("; ".join(self.lost))

    def _judge(self, client: Client) -> None:
        kind = client.name.split()[0]
        self.counts[f"{kind}: {client.outcome}"] += 1
        # Giving up is always allowed, also before what another collector took meanwhile: `_settle` tells if it lasts.
        if client.error is not None and not isinstance(client.error, FailbackError):
            raise client.error

    def _settle(self) -> None:
        """When all is over: the next exports succeed, two collections leave nothing, and all is still there."""
        self.scenario = replace(self.scenario, trouble=0.0, jump=0.0)
        while self.bucket.held:
            self.bucket.release(0)
            self._check()
        self.bucket.now += 50 * HOUR
        for machine in sorted({m for m, _host in self.scenario.writers}):
            self.writer(machine, "a")
            self.drain()
            assert self.clients[-1].outcome == "done", self.clients[-1].error
        for _ in range(2):
            self.bucket.now += 50 * HOUR
            self.collector()
            self.drain()
            assert self.clients[-1].outcome == "done", self.clients[-1].error
        needed = frozenset[str]().union(*(known.needs for known in self.points.values()))
        left = {key for key in self.bucket.keys if key.startswith(("packs/", "pages/"))}
        assert left <= needed, f"never collected: {sorted(left - needed)}"
        self.restore()

    def _stop(self) -> None:
        """No thread stays behind."""
        for client in self.clients:
            while not client.done:
                client.step("killed before")


def _digest_of(disk: dict[int, bytes], repository: Repository) -> str:
    ids = b"".join(repository.chunk_id(disk[n]) if n in disk else bytes(ID_SIZE) for n in range(CHUNKS))
    return disk_digest(leaf(ids), size=CHUNKS * CHUNK, chunk_size=CHUNK).hex()


def run(scenario: Scenario, counts: Counter[str] | None = None) -> None:
    """One interleaving. Raises Lost, or AssertionError; its notes then say what led there."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as root:
        world = World(scenario, Path(root), counts)
        with simulated(world):
            try:
                world.run()
            except BaseException as error:
                error.add_note("\n".join([f"{scenario}", *world.way]))
                raise


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """The product with a pack for each chunk, a journal for each pack, one thread for each client, and the processes
    of the world in place of this one."""
    with ExitStack() as stack:
        for name, module in sorted(sys.modules.items()):
            if name.startswith("pipeline.") and hasattr(module, "ThreadPoolExecutor"):
                stack.enter_context(patch.object(module, "ThreadPoolExecutor", Inline))
            if name.startswith("pipeline.") and getattr(module, "version", None) is version:
                stack.enter_context(patch.object(module, "version", VERSION))  # reads a file each time
        for found in (IndexReader, Repository):
            for value in vars(found).values():
                if isinstance(value, cached_property) and hasattr(value, "lock"):
                    # Before Python 3.12 it is one lock for all objects of a process: clients are not of one process.
                    stack.enter_context(patch.object(value, "lock", nullcontext()))
        stack.enter_context(patch("manifests.pack.PACK_SIZE", CHUNK // 2))
        stack.enter_context(patch("pipeline.transfer.send.JOURNAL_SECONDS", 0.0))
        stack.enter_context(patch("pipeline.transfer.scan.SEGMENT_BYTES", 2 * CHUNK))
        stack.enter_context(patch.object(Process, "current", lambda: Client.current().process))
        stack.enter_context(patch("pipeline.transfer.process._start_time", world.runs))
        yield
