"""What all usable points need: packs with their stored lengths, and index objects. Each object is read once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from manifests.envelope import Kind
from manifests.manifest import Disk
from manifests.names import manifest_key, page_key
from manifests.packlist import decode_pack_list
from pipeline.catalogue import Point, forgotten, load, machines, sequences
from pipeline.collect.history import History
from pipeline.collect.points import Keys
from pipeline.collect.record import known_heights
from pipeline.errors import AccessDenied, CatalogueError, CorruptObject, FormatError
from pipeline.mend.damage import Damage, Problem
from pipeline.repository import Repository
from pipeline.transfer.index_reader import IndexReader


@dataclass(slots=True)
class Needs:
    """Of `points`. `damages` are objects that could not be read while finding out."""

    points: list[Point] = field(default_factory=list)
    packs: dict[bytes, int] = field(default_factory=dict)
    """Stored length in bytes; 0 where no list that could be read says it."""
    pages: set[bytes] = field(default_factory=set)
    damages: list[Damage] = field(default_factory=list)


def needs_of_all(repository: Repository, *, tick: Callable[[], object] = lambda: None) -> Needs:
    """Raises StoreError when the store cannot be asked."""
    needs = Needs()
    written = _versions(repository)
    known = known_heights(repository)
    for machine in sorted({*machines(repository), *(name for name, _sequence in written.hidden), *known}):
        gone = forgotten(repository, machine)
        taken = sequences(repository, machine)
        hidden = {sequence for name, sequence in written.hidden if name == machine}
        highest = max([*taken, *hidden, *gone, known.get(machine, 0)], default=0)
        missing = {*range(1, highest + 1)} - {*taken, *gone}
        for sequence in sorted(missing):
            key = manifest_key(machine, sequence)
            needs.damages.append(
                Damage(key, "missing", f"{key} is missing, and no tombstone says that it was forgotten")
            )
        for sequence in sorted({*taken, *missing} - gone):
            tick()
            key = manifest_key(machine, sequence)
            if (history := written.rewritten.get((machine, sequence))) is not None:
                needs.damages.append(_rewritten(history))
            try:
                point = load(repository, machine, sequence)
            except FormatError as error:
                needs.damages.append(Damage(key, "bytes", error.message))
                continue
            except CatalogueError:
                continue  # it is lost, or went away with its tombstone
            if point is not None:
                needs.points.append(point)
                for disk in point.manifest.disks:
                    _add(repository, needs, disk)
    for key in sorted(repository.stood_in):
        needs.damages.append(Damage(key, "bytes", f"{key} is damaged or was deleted"))
    return needs


def _versions(repository: Repository) -> Keys:
    """What a bucket that keeps versions tells of manifests; nothing where there are none, or we may not look."""
    versions = repository.store.versions()
    if versions is None or not repository.document.abilities.get("versioning") or not repository.conditional_put:
        return Keys({})
    try:
        return Keys.read_versions(versions, "manifests/")
    except AccessDenied:
        return Keys({})


def _rewritten(history: History) -> Damage:
    text = f"{history.key} is not what was written there at first"
    if any(version.marker for version in history.versions):
        # Each may be a good point: whoever deleted the first gave its number away.
        text = f"{text}: that was deleted, and another point has its number. Look at both with the store's own tools"
        return Damage(history.key, "rewritten", text)
    return Damage(history.key, "overwritten", f"{text}: it was overwritten")


def _add(repository: Repository, needs: Needs, disk: Disk) -> None:
    for list_id in map(bytes.fromhex, disk.packs):
        if list_id in needs.pages:
            continue
        needs.pages.add(list_id)
        try:
            found = decode_pack_list(repository.get_page_object(Kind.PACK_LIST, list_id), name=page_key(list_id))
        except FormatError as error:
            needs.damages.append(_damage(page_key(list_id), error))
            continue
        for pack, use in found.items():
            if use.stored or pack not in needs.packs:
                needs.packs[pack] = use.stored
    reader = IndexReader(repository, disk)
    directory_id = bytes.fromhex(disk.index.pages)
    if directory_id not in needs.pages:
        needs.pages.add(directory_id)
        try:
            needs.pages.update(reader.directory[number] for number in reader.directory.stored())
        except FormatError as error:
            needs.damages.append(_damage(page_key(directory_id), error))
    for tier in disk.index.tiers:
        if tier.table is not None:
            table_id = bytes.fromhex(tier.table)
            if table_id in needs.pages:
                continue
            needs.pages.add(table_id)
        try:
            needs.pages.update(bytes.fromhex(segment.id) for segment in reader.segments(tier))
        except FormatError as error:
            needs.damages.append(_damage(page_key(bytes.fromhex(tier.table or "")), error))


def _damage(key: str, error: FormatError) -> Damage:
    absent = isinstance(error, CorruptObject) and "is missing" in error.message
    problem: Problem = "missing" if absent else "bytes"
    return Damage(key, problem, error.message)
