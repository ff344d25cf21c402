"""Collection: finds what no recovery point needs, in the order that loses nothing, and deletes it.

Killed anywhere, the next one finds what is left by itself. Two at once do each other no harm: what is garbage stays
garbage, since no name is ever created twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from manifests.envelope import Kind
from manifests.names import manifest_key, run_name, sessions_prefix, tombstone_key
from manifests.repository import KEY
from pipeline.catalogue import Point, check_tombstones, load, mismatch
from pipeline.collect.deletion import Doomed, delete_objects, delete_versions
from pipeline.collect.history import Erased
from pipeline.collect.inventory import Inventory
from pipeline.collect.needs import Needs
from pipeline.collect.order import COLLECTOR, CollectorStep
from pipeline.collect.plan import Plan, Share, kept, sparse
from pipeline.collect.points import Keys, Name, check_gaps, check_rewritten
from pipeline.collect.record import CLOCK, fence, held_points, known_heights, publish, verification_keys
from pipeline.collect.sessions import Attempts, committed, named_points, read_sessions
from pipeline.errors import CatalogueError, CorruptObject, FormatError, StoreFull, UsageError
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.store.base import ObjectInfo, Versions
from pipeline.transfer.session import touch
from pipeline.units import duration

GRACE = timedelta(hours=24)
LEAST_GRACE = timedelta(hours=1)
"""Longer than any request is on its way and any two clocks of one store differ."""
RECALL = timedelta(hours=24)
"""So long at least a forgotten point can be brought back, whatever the grace of a collection."""
SKEW = 300.0
"""Seconds by which the clocks of one store's nodes may differ."""
_WRITTEN = ("sessions/", "gc/", "manifests/", "tombstones/")
"""Where every writer leaves something."""
_AHEAD = 64
_NEVER = float("inf")


class Collection:
    """One collection. `run` takes the steps; without `apply` nothing is written but the store's time is asked for.

    In a bucket that keeps versions all versions of what is doomed go, unless a lock keeps them; with `keep_versions`
    deletions hide objects, and all versions stay.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        grace: timedelta = GRACE,
        apply: bool = False,
        keep_versions: bool = False,
        parallel: int = 16,
        watch: Watch = ignore,
        tell: Callable[[str], object] = lambda _text: None,
    ) -> None:
        if grace < LEAST_GRACE:
            raise UsageError(
                f"a grace of {duration(grace.total_seconds())} is too short",
                remedy=f"{duration(LEAST_GRACE.total_seconds())} is the least; "
                f"the default is {duration(GRACE.total_seconds())}",
            )
        self.repository, self.apply, self.parallel = repository, apply, parallel
        self.grace = grace.total_seconds()
        self.watch, self.tell = watch, tell
        self._keep_versions = keep_versions
        self._versions: Versions | None = None
        self.plan = Plan(0.0, self.grace)
        self._old = 0.0
        self._full = False
        self._tombstones = Keys({})
        self._gone: set[Name] = set()
        self._packs: Inventory
        self._pages: Inventory
        self._sessions: list[Attempts] = []
        self._living: dict[Name, list[str]] = {}
        self._named: set[Name] = set()
        self._held: set[Name] = set()
        self._before = _NEVER
        self._manifests = Keys({})
        self._highest: dict[str, int] = {}
        self._dropped: list[Name] = []
        self._settled: list[Attempts] = []
        self._doomed: dict[str, NDArray[np.bool_]] = {}
        self._doomed_hidden: dict[str, NDArray[np.bool_]] = {}
        self._counters = Counters(phase="collect", disk=repository.store.name, total=0)

    def run(self) -> Plan:
        """Raises CorruptObject or StoreError, each with the object's name, when something is not as it has to be for
        a safe collection: nothing was deleted then."""
        steps: dict[CollectorStep, Callable[[], None]] = {
            "clock": self._clock,
            "tombstones": self._read_tombstones,
            "objects": self._list_objects,
            "sessions": self._read_sessions,
            "fence": self._fence,
            "points": self._read_points,
            "publish": self._publish,
            "delete": self._delete,
        }
        for step in COLLECTOR:
            steps[step]()
            self.watch(self._counters)
        return self.plan

    def _clock(self) -> None:
        try:
            clock = touch(self.repository, CLOCK, Kind.RECORD)
        except StoreFull as error:
            clock = self._last_write(error)
        self.plan.time = clock.modified.timestamp()
        self._old = self.plan.time - self.grace
        # Asked of the bucket as it is today: versioning may have been switched on after the repository was made.
        self.plan.versioned = bool(clock.version)
        if clock.version and not self._keep_versions:
            self._versions = self.repository.store.versions()

    def _last_write(self, error: StoreFull) -> ObjectInfo:
        """In a full store nothing can be written, so the time of its newest object counts, which is earlier: all is
        younger by it than it is, and every writer nearer. Raises `error` when there is none."""
        self._full = True
        store = self.repository.store
        times = [info.modified for prefix in _WRITTEN for info in store.list(prefix)]
        known = store.head(KEY)
        if known is None or not times:
            raise error
        self.tell(f"{error.message}: the plan is published after space was freed, as of the last write of the store")
        return replace(known, modified=max(times))

    def _read_tombstones(self) -> None:
        self._tombstones = Keys.read(self.repository, "tombstones/")
        since = self.plan.time - max(self.grace, RECALL.total_seconds())
        self._gone = {name for name, time in self._tombstones.times.items() if time < since}

    def _list_objects(self) -> None:
        self._packs, self._pages = self._inventory("packs/"), self._inventory("pages/")

    def _inventory(self, prefix: str) -> Inventory:
        store = self.repository.store
        if self._versions is None:
            return Inventory.read(store, prefix)
        return Inventory.read_versions(self._versions, prefix, store.name)

    def _read_sessions(self) -> None:
        self._sessions = read_sessions(self.repository)
        for attempts in self._sessions:
            living = attempts.living(self._old)
            if not living:
                continue
            self._keep(attempts, living)
        self._held = held_points(self.repository)

    def _keep(self, attempts: Attempts, runs: list[str]) -> None:
        """All that was stored since the first of these sessions began, and what `runs` name."""
        self._living[attempts.machine, attempts.sequence] = runs
        self._before = min(self._before, attempts.since - SKEW)
        for run in runs:
            self._named |= named_points(self.repository, attempts, run)
        since = datetime.fromtimestamp(attempts.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self.plan.sessions.append(f"{attempts.label}, since {since}")

    def _fence(self) -> None:
        """Of a sequence on which nobody works any more nothing may be committed: its objects are not kept."""
        taken = self._taken()
        for attempts in self._sessions:
            name = attempts.machine, attempts.sequence
            if name in self._living or name in taken or name in self._tombstones.times:
                continue
            key = manifest_key(*name)
            if self.repository.store.head(tombstone_key(*name)) is not None:
                continue  # forgotten since the tombstones were read, and collected by another one
            if attempts.announced and committed(self.repository, attempts):
                raise CorruptObject(
                    f"{key} is missing, though a session says that it committed {attempts.label}",
                    remedy="nothing is collected: restore it from an older version or copy of the bucket; if it is "
                    f"lost for good, `failback forget {attempts.label} --missing --reason …` says so",
                )
            if attempts.sign >= self._old:
                # Ended a little while ago: the same command may go on where it ended.
                self._keep(attempts, [])
            elif not attempts.announced:
                self._settled.append(attempts)  # what a fenced writer wrote after its session was deleted
            elif not self.repository.conditional_put:
                # Whoever is silent may wake and commit, however late.
                self._keep(attempts, sorted(attempts.announced - attempts.ended))
                self.plan.unfenced.append(attempts.label)
            else:
                try:
                    if self.apply:
                        fence(self.repository, key)
                    self.plan.fenced.append(attempts.label)
                except StoreFull:
                    self._keep(attempts, sorted(attempts.announced - attempts.ended))
                    self.plan.unfenced.append(attempts.label)

    def _taken(self) -> set[Name]:
        """What has a manifest or void record, be it one that a deletion hides: none is put over it."""
        if self._versions is None:
            return set(Keys.read(self.repository, "manifests/").times)
        return Keys.read_versions(self._versions, "manifests/").readable

    def _read_points(self) -> None:
        # Before the manifests: what was taken then must be listed now.
        self._highest = known_heights(self.repository)
        if self._versions is None:
            self._manifests = Keys.read(self.repository, "manifests/")
        else:
            self._manifests = Keys.read_versions(self._versions, "manifests/")
        try:
            self._check_manifests(self._tombstones)
        except CorruptObject:
            # Unless it was forgotten since the tombstones were read, and collected by another one.
            self._check_manifests(Keys.read(self.repository, "tombstones/"))
        self._check_tombstones()
        self._remember()
        needs = Needs(self.repository, self._packs, self._pages)
        there = sorted(self._manifests.readable)
        wanted = [name for name in there if name not in self._gone or name in self._named | self._held]
        self._counters.total = len(wanted)
        for machine, names in groupby(self._load(wanted), key=lambda entry: entry[0][0]):
            needs.next_machine()
            found = 0
            hashes: dict[int, str] = {}
            for name, point in names:
                self._counters.done += 1
                self.watch(self._counters)
                if point is None:
                    if name not in self._tombstones.times:
                        hashes[name[1]] = ""  # nothing can have been built on it
                    continue
                if name not in self._tombstones.times:
                    found += 1
                    _check_parent(point, hashes)
                whole = self._manifests.times.get(name, 0.0) < self.plan.time - SKEW
                for disk in point.manifest.disks:
                    try:
                        needs.add(disk, label=f"{machine}@{name[1]}", whole=whole)
                    except CorruptObject:
                        self._check_not_overtaken(name)
                        raise
            self.plan.points += found
            self.plan.machines += bool(found)
        needs.follow_relocations()
        self._judge(needs)

    def _check_manifests(self, tombstones: Keys) -> None:
        check_gaps(self._manifests, tombstones, self._highest)
        if self.repository.conditional_put:  # without it the last of two racing writers wins
            check_rewritten(self._manifests, tombstones)

    def _remember(self) -> None:
        """How far every machine had come: the next collection, and this host, must not find less."""
        for machine, sequence in [*self._manifests.highest().items(), *self._tombstones.highest().items()]:
            self._highest[machine] = max(self._highest.get(machine, 0), sequence)
        if self.repository.seen is not None:
            for machine, sequence in self._highest.items():
                self.repository.seen.notice(machine, sequence, self.repository.store.name)

    def _check_tombstones(self) -> None:
        """Who can put an object there, and has no key, must not make us delete a point."""
        doomed = sorted(self._gone & self._manifests.readable)
        with ThreadPoolExecutor(self.parallel, "collect") as pool:
            try:
                for _ in pool.map(lambda name: check_tombstones(self.repository, name[0], [name[1]]), doomed):
                    pass
            except FormatError as error:
                error.remedy = f"nothing is collected: {error.remedy}"
                raise

    def _load(self, names: list[Name]) -> Iterator[tuple[Name, Point | None]]:
        """Manifests in order, some read ahead."""
        with ThreadPoolExecutor(self.parallel, "collect") as pool:
            left = iter(names)
            while batch := list(islice(left, _AHEAD)):
                yield from zip(batch, pool.map(self._load_one, batch), strict=True)

    def _check_not_overtaken(self, name: Name) -> None:
        """Something of a point is gone. Raises CatalogueError when another collection may have taken it since this one
        began: it ran or was suspended for so long."""
        made = self.repository.store.head(tombstone_key(*name))
        if made is None:
            return
        now = touch(self.repository, CLOCK, Kind.RECORD).modified
        if now - made.modified >= RECALL:
            passed = duration(now.timestamp() - self.plan.time)
            raise CatalogueError(
                f"{name[0]}@{name[1]} was forgotten, and another collection has taken what it needs since this one "
                f"began, {passed} ago",
                remedy="nothing was deleted by this one, and nothing is wrong: run it again",
            )

    def _load_one(self, name: Name) -> Point | None:
        try:
            return load(self.repository, *name)
        except CatalogueError:
            self._check_not_overtaken(name)
            raise
        except CorruptObject as error:
            self._check_not_overtaken(name)
            raise CorruptObject(
                f"{error.message}; what {name[0]}@{name[1]} needs is not known",
                remedy="nothing is collected: restore it from an older version or copy of the bucket, or give it up "
                f"with `failback forget {name[0]}@{name[1]} --missing --reason …`",
            ) from error

    def _judge(self, needs: Needs) -> None:
        plan = self.plan
        for inventory in (self._packs, self._pages):
            doomed, shares = kept(inventory, older=self._old, before=self._before)
            self._doomed[inventory.prefix] = doomed
            if inventory.hidden is not None and inventory.others is not None:
                more, hidden = kept(inventory.hidden, older=self._old, before=self._before)
                self._doomed_hidden[inventory.prefix] = more
                plan.hidden = (plan.hidden or Share()) + hidden.doomed + Share(0, int(inventory.others[doomed].sum()))
            if inventory is self._packs:
                plan.packs = shares
            else:
                plan.pages = shares
        plan.sparse, plan.sparse_dead = sparse(self._packs, needs.most)
        highest = self._manifests.highest()
        for name in sorted(self._tombstones.times):
            if name not in self._manifests.times:
                continue
            label = f"{name[0]}@{name[1]}"
            if name not in self._gone or name in self._named | self._held:
                plan.points_waiting.append(label)
            elif name[1] != highest[name[0]]:
                # The highest stays: whoever lists manifests only must still see which numbers are taken.
                self._dropped.append(name)
                plan.points_gone.append(label)
        would = set(plan.fenced)
        for attempts in self._sessions:
            name = attempts.machine, attempts.sequence
            taken = name in self._manifests.times or name in self._tombstones.times or attempts.label in would
            if taken and name not in self._living and attempts.sign < self._old:
                self._settled.append(attempts)
        plan.sessions_gone = [attempts.label for attempts in self._settled]

    def _publish(self) -> None:
        if self.apply and not self._full:
            stamp = datetime.fromtimestamp(self.plan.time, UTC).strftime("%Y%m%dT%H%M%SZ")
            publish(self.repository, f"gc/{stamp}-{secrets.token_hex(4)}", self.plan.as_json(), self._highest)

    def _delete(self) -> None:
        if not self.apply:
            return
        self._counters.phase = "delete"
        hidden = [name for name in self._manifests.hidden if name in self._gone - self._named - self._held]
        doomed = Doomed(
            {
                **{inventory.prefix: self._doomed_keys(inventory) for inventory in (self._packs, self._pages)},
                "manifests/": [manifest_key(*name) for name in sorted([*self._dropped, *hidden])],
                "verified/": verification_keys(self._dropped),
            },
            [f"{sessions_prefix(a.machine)}{run_name(a.sequence, 0)[:-4]}" for a in self._settled],
        )
        if self._versions is None:
            delete_objects(self.repository.store, doomed)
        else:
            self.plan.erased = Erased()
            delete_versions(self._versions, doomed, self.plan.erased, before=self._old)
        if self._full:
            self._full = False
            with suppress(StoreFull):
                self._publish()

    def _doomed_keys(self, inventory: Inventory) -> Iterator[str]:
        seen = inventory.keys(self._doomed[inventory.prefix])
        hidden = inventory.hidden
        return seen if hidden is None else merge(seen, hidden.keys(self._doomed_hidden[inventory.prefix]))


def _check_parent(point: Point, hashes: dict[int, str]) -> None:
    """Raises CorruptObject when it was built on another manifest than is there now: what the first one needs would be
    taken for garbage. `hashes`: of the machine's points so far."""
    if text := mismatch(point, hashes):
        raise CorruptObject(
            text,
            remedy="nothing is collected: somebody's credentials may be stolen. `failback verify` of both tells more; "
            "restore the one that was overwritten from an older version or copy of the bucket, or give one of them up "
            "with `failback forget`",
        )
    hashes[point.manifest.sequence] = point.object_hash
