"""Ways to hurt a repository, and what its scrub then says."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from transfer.support import CHUNK, Workbench, make_disk, noise

from manifests.names import pack_key
from pipeline.mend.damage import damaged_ids
from pipeline.mend.findings import Findings, find_harm
from pipeline.mend.listing import scrub_listing
from pipeline.mend.needs import needs_of_all
from pipeline.mend.progress import Notebook
from pipeline.mend.scrub import ScrubReport, scrub_by_id
from pipeline.repository import Repository
from pipeline.store.base import Store


def flip(store: Store, key: str, at: int) -> None:
    """One bit of one byte."""
    data = bytearray(store.get(key))
    data[at] ^= 1
    store.put(key, data)


def cut(store: Store, key: str, length: int) -> None:
    store.put(key, bytes(store.get(key))[:length])


def remove(store: Store, key: str) -> None:
    store.delete_many([key])


def swap(store: Store, key: str, other: str) -> None:
    """Another valid object in its place."""
    store.put(key, bytes(store.get(other)))


def by_listing(repository: Repository) -> Findings:
    needs = needs_of_all(repository)
    return find_harm(repository, scrub_listing(repository.store, needs, suspects=damaged_ids(repository)), needs)


def by_reading(
    repository: Repository,
    state: Path,
    *,
    deep: bool = False,
    share: Fraction | None = Fraction(1),
    most: int | None = None,
) -> tuple[ScrubReport, Findings]:
    needs = needs_of_all(repository)
    notebook = Notebook(state, repository.document.id, "deep" if deep else "id", repository)
    report = scrub_by_id(
        repository.store,
        notebook,
        share=share,
        most=most,
        deep=repository if deep else None,
        needs=needs,
        suspects=damaged_ids(repository),
        parallel=2,
    )
    return report, find_harm(repository, report, needs)


def filled(bench: Workbench, *, chunks: int = 200, name: str = "disk.img") -> Path:
    """A disk of noise with a hole in front, exported as the next point: two packs of chunks."""
    disk = make_disk(bench.root / name, (chunks + 10) * CHUNK, {10 * CHUNK: noise(chunks * CHUNK, name)})
    bench.export(disk)
    return disk


def pack_at(bench: Workbench, position: int, sequence: int | None = None) -> str:
    """Key of the pack that holds a position's chunk."""
    return pack_key(bench.index(sequence)[position][1])


def positions_in(bench: Workbench, key: str, sequence: int | None = None) -> list[int]:
    return sorted(p for p, place in bench.index(sequence).items() if pack_key(place[1]) == key)


Hurt = Callable[[Store, str], None]
