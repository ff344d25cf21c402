"""Scrub by listing: presence and size of everything that all points need, by two sweeps of the store.

With 1,000 keys a page, 10 TiB in packs of 8 MiB take 1,311 requests for `packs/`; their 40,960 pages 41 for `pages/`;
and each point its manifest and what is new of its pack lists and page directories.
"""

from __future__ import annotations

from pipeline.mend.needs import Needs
from pipeline.mend.scrub import ScrubReport, missing, wrong_size
from pipeline.progress import Counters, Watch, ignore
from pipeline.store.base import Store


def scrub_listing(
    store: Store, needs: Needs, *, suspects: set[bytes] | None = None, watch: Watch = ignore
) -> ScrubReport:
    """Packs are listed once for all points. Raises StoreError: an error is never taken for an absent object.

    A damage record whose object is there in its whole size stays: only reading tells whether it is right.
    """
    report = ScrubReport()
    counters = Counters(phase="scrub", disk=store.name, total=len(needs.packs) + len(needs.pages))
    absent = {*needs.packs, *needs.pages}
    suspects = suspects or set()
    for prefix in ("packs/", "pages/"):
        for info in store.list(prefix):
            report.objects += 1
            report.size += info.size
            try:
                object_id = bytes.fromhex(info.key[-64:])
            except ValueError:
                continue  # not an object of failback
            absent.discard(object_id)
            damage = wrong_size(info, needs.packs.get(object_id, 0)) if prefix == "packs/" else None
            if damage is not None:
                report.damages.append(damage)
            counters.done += 1
            watch(counters)
    for object_id in sorted(absent):
        damage = missing(object_id, pack=object_id in needs.packs)
        # A listing that left it out, or a collector that took it meanwhile with its last point, is no damage.
        if store.head(damage.key) is None:
            report.damages.append(damage)
    report.healthy = [i for i in suspects if i not in needs.packs and i not in needs.pages]
    return report
