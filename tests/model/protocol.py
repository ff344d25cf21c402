"""The protocol of sessions, fences, forgetting and collection, small enough to search every interleaving.

One machine. Time is a number of graces that passed: what was made in an earlier one is older than the grace, and a
session without a sign in this one has expired (so everybody may be suspended for longer than the grace, anywhere).
Point 1 is there from the beginning and needs pack "p". A writer stores one pack, with or without a journal of it,
builds on the newest point that it sees, and relies on what earlier attempts at its sequence journaled.

Lost is a state in which a manifest that nobody forgot needs a pack that is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.collect.order import COLLECTOR, WRITER

Packs = frozenset[str]
VOID: Packs = frozenset({"void"})


class Run(NamedTuple):
    """A session in the store."""

    seq: int
    attempt: int
    start: int
    sign: int
    named: frozenset[int]
    journaled: Packs
    ended: bool


class Writer(NamedTuple):
    """`at`: the next of its steps; `left` has no more to do."""

    name: str
    at: int = 0
    seq: int = 0
    attempt: int = 0
    parent: int = 0
    needs: Packs = frozenset()
    loaded: bool = False
    journaled: bool = False
    left: bool = False


class Seen(NamedTuple):
    """What a collector has read so far."""

    at: int = 0
    runs: int = 0
    now: int = 0
    gone: frozenset[int] = frozenset()
    listed: Packs = frozenset()
    live: frozenset[Run] = frozenset()
    dead: frozenset[int] = frozenset()
    sessions: frozenset[Run] = frozenset()
    points: tuple[tuple[int, Packs], ...] = ()
    marked: bool = False


class World(NamedTuple):
    """Everything: store, writers, collectors."""

    now: int
    packs: frozenset[tuple[str, int]]
    manifests: tuple[tuple[int, Packs], ...]
    tombstones: frozenset[tuple[int, int]]
    runs: frozenset[Run]
    delayed: frozenset[tuple[int, Packs]]
    writers: tuple[Writer, ...]
    collectors: tuple[Seen, ...]
    forgets: int

    def get(self, seq: int) -> Packs | None:
        return dict(self.manifests).get(seq)

    def create(self, seq: int, content: Packs) -> World:
        return self._replace(manifests=tuple(sorted([*self.manifests, (seq, content)], key=lambda m: m[0])))

    def forgotten(self) -> frozenset[int]:
        return frozenset(s for s, _made in self.tombstones)

    def run(self, writer: Writer) -> Run | None:
        return next((r for r in self.runs if (r.seq, r.attempt) == (writer.seq, writer.attempt)), None)

    def with_run(self, old: Run | None, new: Run) -> World:
        return self._replace(runs=(self.runs - {old}) | {new} if old else self.runs | {new})

    def with_writer(self, i: int, writer: Writer) -> World:
        if writer.left:
            writer = Writer(writer.name, left=True)  # what it knew does not matter any more
        return self._replace(writers=(*self.writers[:i], writer, *self.writers[i + 1 :]))

    def with_collector(self, i: int, seen: Seen) -> World:
        """Collectors are all alike: which of them did what is no difference."""
        others = (*self.collectors[:i], *self.collectors[i + 1 :])
        return self._replace(collectors=tuple(sorted([*others, seen], key=repr)))


@dataclass(frozen=True)
class Rules:
    """The protocol, and how it can be got wrong."""

    collector: tuple[str, ...] = tuple(step for step in COLLECTOR if step != "publish")
    writer: tuple[str, ...] = WRITER
    client_clock: bool = False
    """A collector goes by its own clock, which is ahead."""
    held_by_journals: bool = False
    """A live session keeps what its journals name, instead of all that is younger than it."""
    own_start: bool = False
    """It keeps what is younger than itself, not than the first attempt at its sequence."""
    parents_kept: bool = True
    fences: bool = True
    """Without conditional PUT there is no fence: who announced a sequence that is not taken is alive for ever."""
    silent_parents: bool = True
    """Where there is no fence: what those name who are silent is kept, too."""
    fence_ended: bool = True
    """Sessions that ended without a commit are fenced like expired ones: the next attempt builds on their journals."""
    voids_deleted: bool = False
    tombstones_deleted: bool = False
    young_tombstones: bool = False
    """A tombstone counts at once, not after the grace."""
    recall_unchecked: bool = False
    """A point is brought back without a look at the age of its tombstone."""


@dataclass(frozen=True)
class Setting:
    """Who takes part. Writers named "copy…" bring point 1 back, others export."""

    writers: tuple[str, ...] = ()
    collectors: int = 1
    collections: int = 1
    """By each of them."""
    forgets: int = 0
    graces: int = 2
    duplicates: bool = False
    """Commits may arrive once more, whenever; that of point 1, too."""

    def start(self) -> World:
        return World(
            now=1,
            packs=frozenset({("p", 0)}),
            manifests=((1, frozenset({"p"})),),
            tombstones=frozenset(),
            runs=frozenset(),
            delayed=frozenset({(1, frozenset({"p"}))}) if self.duplicates else frozenset(),
            writers=tuple(Writer(name) for name in self.writers),
            collectors=(Seen(),) * self.collectors,
            forgets=self.forgets,
        )


def lost(world: World) -> bool:
    there = {name for name, _made in world.packs}
    gone = world.forgotten()
    return any(c != VOID and s not in gone and not c <= there for s, c in world.manifests)


def search(rules: Rules, setting: Setting, *, most: int = 3_000_000) -> tuple[list[str], int]:
    """The shortest way to a state in which something is lost (empty: there is none), and the number of states."""
    start = setting.start()
    came: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        for what, after in steps(world, rules, setting):
            if after in came:
                continue
            came[after] = (world, what)
            if lost(after):
                return _way(came, after), len(came)
            queue.append(after)
        assert len(came) < most, "the setting is too large to be searched"
    return [], len(came)


def _way(came: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    way = []
    at = came[world]
    while at is not None:
        way.append(at[1])
        at = came[at[0]]
    return way[::-1]


def steps(world: World, rules: Rules, setting: Setting) -> Iterator[tuple[str, World]]:
    """Whatever may happen next."""
    if world.now <= setting.graces:
        yield "the grace passes", world._replace(now=world.now + 1)
    for i, writer in enumerate(world.writers):
        for what, after in _write(world, i, writer, rules, setting):
            yield f"{writer.name} {what}", after
    for i, seen in enumerate(world.collectors):
        if seen.runs < setting.collections and seen not in world.collectors[:i]:
            for what, after in _collect(world, i, seen, rules):
                yield f"collector {i} {what}", after
    if world.forgets:
        for seq, content in world.manifests:
            if content != VOID and seq not in world.forgotten():
                made = world.tombstones | {(seq, world.now)}
                yield f"forget {seq}", world._replace(tombstones=made, forgets=world.forgets - 1)
    for seq, content in world.delayed:
        if world.get(seq) is None:
            after = world.create(seq, content)
            yield f"a delayed commit of {seq} arrives", after._replace(delayed=world.delayed - {(seq, content)})


def _write(world: World, i: int, w: Writer, rules: Rules, setting: Setting) -> Iterator[tuple[str, World]]:
    if w.left:
        return
    copy = w.name.startswith("copy")
    if not w.loaded:
        usable = [s for s, c in world.manifests if c != VOID and (s == 1 if copy else s not in world.forgotten())]
        if not usable or (copy and 1 not in world.forgotten()):
            return
        following = 1 + max([s for s, _c in world.manifests] + [s for s, _t in world.tombstones])
        parent = usable[-1]
        chosen = w._replace(loaded=True, seq=following, parent=parent, needs=world.get(parent) or frozenset())
        yield f"builds {following} on {parent}", world.with_writer(i, chosen)
        return
    run = world.run(w) if w.attempt else None
    if run is not None and not run.ended:
        if run.sign < world.now:
            yield "gives a sign", world.with_run(run, run._replace(sign=world.now))
        ended = world.with_run(run, run._replace(ended=True))
        yield "fails", ended.with_writer(i, w._replace(left=True))
    step = rules.writer[w.at]
    ahead = w._replace(at=w.at + 1)
    if step == "announce":
        earlier = [r for r in world.runs if r.seq == w.seq]
        if any(not r.ended and r.sign >= world.now for r in earlier):
            return
        attempt = 1 + max((r.attempt for r in earlier), default=0)
        new = Run(w.seq, attempt, world.now, world.now, frozenset({w.parent}), frozenset(), False)
        yield "announces", world.with_run(None, new).with_writer(i, ahead._replace(attempt=attempt))
    elif step == "check":
        young = any(s == 1 and t == world.now for s, t in world.tombstones) or rules.recall_unchecked
        bad = not young if copy else w.parent in world.forgotten()
        if bad or world.get(w.parent) is None or world.get(w.seq) is not None:
            yield "is refused", world.with_writer(i, w._replace(left=True))
            return
        known: Packs = frozenset().union(*(r.journaled for r in world.runs if r.seq == w.seq))
        yield "checks", world.with_writer(i, ahead._replace(needs=w.needs | (frozenset() if copy else known)))
    elif step == "store":
        if copy or w.name in w.needs:
            yield "stores", world.with_writer(i, ahead)
            if run is not None and not w.journaled and not copy:
                journal = run._replace(journaled=run.journaled | {w.name}, sign=world.now)
                yield "journals", world.with_run(run, journal).with_writer(i, w._replace(journaled=True))
            return
        stored = world._replace(packs=world.packs | {(w.name, world.now)})
        yield "puts its pack", stored.with_writer(i, w._replace(needs=w.needs | {w.name}))
    elif step == "commit":
        if world.get(w.seq) is not None:
            yield "is fenced", world.with_writer(i, w._replace(left=True))
            return
        done = world.create(w.seq, w.needs).with_writer(i, ahead)
        yield f"commits {w.seq}", done
        if setting.duplicates:
            yield f"commits {w.seq}, twice", done._replace(delayed=world.delayed | {(w.seq, w.needs)})
    elif step == "end" and run is not None:
        yield "ends", world.with_run(run, run._replace(ended=True)).with_writer(i, w._replace(left=True))


def _collect(world: World, i: int, seen: Seen, rules: Rules) -> Iterator[tuple[str, World]]:
    step = rules.collector[seen.at]
    ahead = seen._replace(at=seen.at + 1)
    if step == "clock":
        # When it begins does not matter, only what it takes for the time; so it begins with the next step.
        now = world.now + (1 if rules.client_clock else 0)
        yield from _collect(world, i, ahead._replace(now=now), rules)
        return
    if step == "tombstones":
        ahead = ahead._replace(gone=frozenset(s for s, t in world.tombstones if t < seen.now or rules.young_tombstones))
    elif step == "objects":
        ahead = ahead._replace(listed=frozenset(p for p, made in world.packs if made < seen.now))
    elif step == "sessions":
        live = frozenset(r for r in world.runs if not r.ended and r.sign >= seen.now)
        if not rules.fences:
            live |= frozenset(r for r in world.runs if world.get(r.seq) is None)
            if not rules.silent_parents:
                live = frozenset(r if r.sign >= seen.now else r._replace(named=frozenset()) for r in live)
        dead = frozenset(r.seq for r in world.runs if rules.fence_ended or not r.ended) - {r.seq for r in live}
        ahead = ahead._replace(live=live, dead=dead, sessions=world.runs)
    elif step == "fence":
        for seq in sorted(seen.dead):
            if world.get(seq) is None and seq not in world.forgotten():
                world = world.create(seq, VOID)
    elif step == "wait":
        if world.now <= seen.now:
            return
    elif step == "points":
        ahead = ahead._replace(points=world.manifests, marked=True)
    elif step == "delete":
        world = _delete(world, seen, rules)
        ahead = Seen(runs=seen.runs + 1)
    yield step, world.with_collector(i, ahead)


def _delete(world: World, seen: Seen, rules: Rules) -> World:
    named = frozenset().union(*(r.named for r in seen.live)) if rules.parents_kept else frozenset()
    kept: Packs = frozenset().union(*(c for s, c in seen.points if s not in seen.gone or s in named))
    made = dict(world.packs)
    doomed = set(seen.listed - kept)
    for run in seen.live:
        group = [r for r in seen.sessions if r.seq == run.seq]
        if rules.held_by_journals:
            doomed -= frozenset().union(*(r.journaled for r in group))
        else:
            since = run.start if rules.own_start else min(r.start for r in group)
            doomed -= {p for p in doomed if made.get(p, 0) >= since}
    highest = max(s for s, _c in seen.points)
    dropped = {s for s, c in seen.points if c != VOID and s in seen.gone and s not in named and s != highest}
    settled = {s for s, _c in seen.points} | seen.gone
    old = {r for r in seen.sessions if r.seq in settled and r.sign < seen.now and r not in seen.live}
    voids = {s for s, c in seen.points if c == VOID} if rules.voids_deleted else set()
    return world._replace(
        packs=frozenset((p, t) for p, t in world.packs if p not in doomed),
        manifests=tuple((s, c) for s, c in world.manifests if s not in dropped | voids),
        runs=frozenset(r for r in world.runs if r not in old),
        tombstones=frozenset(t for t in world.tombstones if not (rules.tombstones_deleted and t[0] in dropped)),
    )


def wrong(**changes: object) -> Rules:
    """The protocol with something got wrong."""
    return replace(Rules(), **changes)  # type: ignore[arg-type]
