"""Scrub: every stored object is looked at again and again, a share of them in each run.

Ids are spread evenly over their range, so a thirtieth of the range is a thirtieth of the objects: a run goes on from
where the last one ended, through packs and index objects in the order of their ids, and begins anew after the highest.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction

from manifests.names import pack_key, page_key
from pipeline.mend.check import check_by_name, check_by_place, check_content
from pipeline.mend.damage import Damage
from pipeline.mend.needs import Needs
from pipeline.mend.notes import check_notes
from pipeline.mend.progress import START, Notebook
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.store.base import ObjectInfo, Store

_SAVE_SECONDS = 2.0
_ALL = 1 << 256
PLACES = ("manifests/", "tombstones/", "relocations/")
"""Where points are named by their place; all of these are checked in every run, with what `notes` names."""


@dataclass(slots=True)
class ScrubReport:
    """What a run looked at and found."""

    objects: int = 0
    size: int = 0
    """Bytes read, or listed."""
    first: str = ""
    at: str = ""
    whole_rounds: bool = False
    """The run reached the highest id: the next begins a new round."""
    damages: list[Damage] = field(default_factory=list)
    healthy: list[bytes] = field(default_factory=list)
    """Ids of objects that had a damage record and are right."""


def scrub_by_id(
    store: Store,
    notebook: Notebook,
    *,
    share: Fraction | None,
    most: int | None,
    deep: Repository | None = None,
    needs: Needs | None = None,
    suspects: set[bytes] | None = None,
    root: bytes | None = None,
    parallel: int = 6,
    watch: Watch = ignore,
) -> ScrubReport:
    """Read a `share` of all objects, or `most` bytes (and the object they end in), and compare them with their names.

    `deep`: open them too, down to the content of every chunk. With `needs`, what points need and is not there is found
    as well. `suspects` are ids with damage records; with the ring's public key `root` key slots are checked for who
    wrote them. A run that was cut off goes on where it was.
    """
    progress = notebook.begin()
    start = int(progress.first, 16)
    end = min(start + -(-_ALL * share.numerator // share.denominator), _ALL) if share is not None else _ALL
    report = ScrubReport(first=progress.first)
    counters = Counters(phase="scrub", disk=store.name, total=most or 0)
    needed = _Needed(needs, start)
    saved = time.monotonic()
    with ThreadPoolExecutor(parallel, "scrub") as pool:
        report.damages += [*check_places(store, parallel=parallel), *check_notes(store, root=root, parallel=parallel)]
        ahead: deque[tuple[ObjectInfo, Future[tuple[Damage | None, int]]]] = deque()

        def take() -> None:
            nonlocal progress, saved
            info, future = ahead.popleft()
            damage, read = future.result()
            report.objects += 1
            report.size += read
            counters.read = counters.done = report.size
            object_id = bytes.fromhex(info.key[-64:])
            if damage is not None:
                report.damages.append(damage)
            elif read and suspects and object_id in suspects:
                report.healthy.append(object_id)
            progress = replace(
                progress, at=_after(info), objects=report.objects, bytes=report.size, damaged=len(report.damages)
            )
            if time.monotonic() - saved >= _SAVE_SECONDS:
                notebook.save(progress)
                saved = time.monotonic()
            watch(counters)

        listed = 0
        at = start
        for info in _objects(store, start):
            at = int(info.key[-64:], 16)
            if at >= end or (most is not None and listed >= most):
                end = min(at, end)
                break
            report.damages += needed.missing_before(info)
            listed += info.size
            ahead.append((info, pool.submit(_look, store, deep, info.key)))
            if len(ahead) > parallel:
                take()
        while ahead:
            take()
    report.damages = unique([*report.damages, *needed.missing_until(end)])
    report.whole_rounds = end >= _ALL
    progress = replace(progress, at=START if end >= _ALL else f"{end:064x}", damaged=len(report.damages))
    report.at = progress.at
    notebook.finish(progress)
    return report


def _look(store: Store, deep: Repository | None, key: str) -> tuple[Damage | None, int]:
    damage, data = check_by_name(store, key)
    if damage is None and data is not None and deep is not None:
        damage = check_content(deep, key, data)
    return damage, 0 if data is None else len(data)


def check_places(store: Store, *, parallel: int = 6) -> list[Damage]:
    """What is damaged of all that is named by its place. Raises StoreError."""
    keys = [info.key for prefix in PLACES for info in store.list(prefix)]
    with ThreadPoolExecutor(parallel, "scrub") as pool:
        return [damage for damage in pool.map(lambda key: check_by_place(store, key), keys) if damage]


def _objects(store: Store, start: int) -> Iterator[ObjectInfo]:
    """Packs and index objects from id `start`, in order of their ids."""
    first = f"{start:064x}"
    for number in range(int(first[:2], 16), 256):
        digits = f"{number:02x}"
        folders = (f"packs/{digits}/", f"pages/{digits}/")
        listings = (_listing(store, folder, first) for folder in folders)
        yield from heapq.merge(*listings, key=lambda info: info.key[-64:])


def _listing(store: Store, folder: str, first: str) -> Iterator[ObjectInfo]:
    for info in store.list(folder):
        name = info.key.removeprefix(folder)
        if len(name) == 64 and name[:2] == folder[-3:-1] and name >= first and set(name) <= set("0123456789abcdef"):
            yield info


def _after(info: ObjectInfo) -> str:
    return f"{min(int(info.key[-64:], 16) + 1, _ALL - 1):064x}"


class _Needed:
    """What points need, in order of the ids, compared with what is listed."""

    def __init__(self, needs: Needs | None, start: int) -> None:
        first = start.to_bytes(32, "big")
        pages = needs.pages if needs else set()
        packs = needs.packs if needs else {}
        self._packs = packs
        self._waiting = iter(sorted(i for i in {*pages, *packs} if i >= first))
        self._next = next(self._waiting, None)

    def missing_before(self, info: ObjectInfo) -> Iterator[Damage]:
        """What should have come before this object, and this one if its size is wrong."""
        object_id = bytes.fromhex(info.key[-64:])
        yield from self._missing(object_id)
        if self._next == object_id:
            self._next = next(self._waiting, None)
        damage = wrong_size(info, self._packs.get(object_id, 0))
        if damage is not None:
            yield damage

    def missing_until(self, end: int) -> Iterator[Damage]:
        if end >= _ALL:
            yield from self._missing(None)
        else:
            yield from self._missing(end.to_bytes(32, "big"))

    def _missing(self, before: bytes | None) -> Iterator[Damage]:
        while self._next is not None and (before is None or self._next < before):
            yield missing(self._next, pack=self._next in self._packs)
            self._next = next(self._waiting, None)


def unique(damages: Iterable[Damage]) -> list[Damage]:
    """The first of each object."""
    return list({damage.key: damage for damage in reversed(list(damages))}.values())[::-1]


def missing(object_id: bytes, *, pack: bool) -> Damage:
    key = pack_key(object_id) if pack else page_key(object_id)
    return Damage(key, "missing", f"{key} is missing from the repository")


def wrong_size(info: ObjectInfo, stored: int) -> Damage | None:
    """`stored`: bytes that pack lists say, 0 when none does."""
    if not stored or info.size == stored:
        return None
    return Damage(info.key, "size", f"{info.key} has {info.size} bytes instead of {stored}")
