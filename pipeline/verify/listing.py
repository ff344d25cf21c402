"""Check by listing: every pack and page object of a point is there, in its whole size, without reading data."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from manifests.names import pack_key, page_key
from pipeline.catalogue import Point
from pipeline.errors import CorruptObject
from pipeline.mend.damage import Damage
from pipeline.mend.harm import harms_of
from pipeline.mend.stand_in import stood_in, with_stand_ins
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository, missing
from pipeline.store.base import ObjectInfo
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.units import count
from pipeline.verify.report import VerifyReport

_HEADS = 256
"""With fewer objects to check than this each is asked for; with more the whole folder is listed."""


def verify_listing(repository: Repository, point: Point, *, watch: Watch = ignore) -> VerifyReport:
    """Raises StoreError when the store can't be asked: an error is never taken for an absent object."""
    report = VerifyReport("")
    wanted: dict[str, tuple[int | None, str]] = {}
    packs = 0
    for disk in point.manifest.disks:
        where = f"{point.manifest.label} disk {disk.number}"
        try:
            uses = packs_of(repository, disk)
            packs += len(uses)
            wanted.update((pack_key(pack), (use.stored, where)) for pack, use in uses.items())
            wanted.update((page_key(page), (None, where)) for page in IndexReader(repository, disk).objects())
        except CorruptObject as error:
            report.problems.append(f"{where}: {error.message}")
    bad: dict[str, Damage] = {}
    counters = Counters(phase="verify", disk=point.manifest.label, total=len(wanted))
    for key, info in _look(repository, wanted, lambda: watch(counters)):
        size, where = wanted[key]
        counters.done += 1
        if info is None:
            bad[key] = Damage(key, "missing", f"{where}: {missing(key).message}")
        elif size is not None and info.size != size:
            bad[key] = Damage(key, "size", f"{where}: {key} has {info.size} bytes instead of {size}")
    if bad:
        damages = with_stand_ins(repository.store, bad.values())
        # A pack may stay named that nothing refers to any more; and what was repaired is read from elsewhere.
        lost = harms_of(repository, [damage for damage in damages if not damage.kept], [point])
        harmful = {harm.key for harm in lost if harm.ranges or not harm.relocated}
        report.problems += [damage.detail for damage in damages if damage.kept or damage.key in harmful]
    report.problems += stood_in(repository, besides=bad)
    report.checked = (
        f"{count(packs, 'pack')} and {count(len(wanted) - packs, 'index object')} are listed, packs in their whole size"
    )
    return report


def _look(
    repository: Repository, wanted: dict[str, tuple[int | None, str]], tick: Callable[[], None]
) -> list[tuple[str, ObjectInfo | None]]:
    store = repository.store
    if len(wanted) <= _HEADS:
        with ThreadPoolExecutor(8, "head") as pool:
            found = list(zip(wanted, pool.map(store.head, wanted), strict=True))
        tick()
        return found
    infos: dict[str, ObjectInfo] = {}
    for prefix in sorted({key[: key.rindex("/") + 1] for key in wanted}):
        infos.update((info.key, info) for info in store.list(prefix) if info.key in wanted)
        tick()
    return [(key, infos.get(key)) for key in wanted]
