"""A small whole repository, kept as a dictionary, and everything that anybody does with one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from manifests.envelope import Kind
from manifests.manifest import encode_record
from manifests.names import manifest_key
from pipeline.catalogue import forget, machines, points
from pipeline.errors import FailbackError, StoreUnavailable
from pipeline.store.fault import Fail, FaultyStore, Rule, startswith
from pipeline.store.memory import MemoryStore
from pipeline.verify.listing import verify_listing
from pipeline.verify.reading import verify_reading
from transfer.support import CHUNK, Workbench, make_disk, noise, poke

SIZE = 12 * CHUNK + 512
MACHINES = ("db", "vm")


def little(seed: object) -> bytes:
    """A chunk that compresses to about a hundred bytes: every byte of what it is stored in can be damaged in turn."""
    return noise(64, seed) * (CHUNK // 64)


@dataclass
class Estate:
    """What is in the repository, what its disks were at each point, and the folders of the exporting host."""

    bench: Workbench
    objects: dict[str, bytes]
    disks: dict[str, bytes]
    """Contents of disk 0 by point, `vm@1`; those of the sources as they are now by machine."""
    catalogue: list[str] = field(default_factory=list)

    def with_objects(self, objects: dict[str, bytes], folder: Path) -> Workbench:
        """The same repository holding `objects` instead, seen by a host that knows nothing of it yet."""
        store = MemoryStore()
        for key, data in objects.items():
            store.put(key, data)
        bench = self.bench.through(store)
        bench.state, bench.out = folder / "state", folder / "out"
        return bench


def build(root: Path, *, encrypted: bool) -> Estate:
    """Two machines of three points; a forgotten one, a void one, and an export that ended before its commit."""
    root.mkdir()
    bench = Workbench(root, MemoryStore(), encrypted=encrypted)
    disks: dict[str, bytes] = {}
    with (
        patch("manifests.pack.PACK_SIZE", 4 * CHUNK),
        patch("pipeline.transfer.send.JOURNAL_BYTES", 1),
        patch("os.fsync", lambda _fd: None),
    ):
        for machine in MACHINES:
            parts = {position * CHUNK: little(f"{machine} {position}") for position in range(6)}
            source = make_disk(root / machine, SIZE, {**parts, 8 * CHUNK: noise(CHUNK, machine), SIZE - 9: b"the end"})
            for sequence in (1, 2, 3):
                bench.export(source, machine=machine)
                disks[f"{machine}@{sequence}"] = source.read_bytes()
                poke(source, sequence * CHUNK, little(f"{machine} again {sequence}"))
                poke(source, 9 * CHUNK, bytes(CHUNK))
        forget(bench.repository, bench.point(2, "vm"), reason="test")
        forget(bench.repository, bench.point(1, "db"), reason="test")
        key = manifest_key("vm", 4)
        void = {"reason": "fenced", "time": "", "by": "test"}
        bench.store.put(key, encode_record(Kind.VOID, void, sealing=bench.repository.sealing, key=key))
        poke(root / "vm", 10 * CHUNK, little("late") + little("later"))
        dies = Rule(Fail(StoreUnavailable("gone")), verb="put", key=startswith("manifests/"))
        try:
            bench.through(FaultyStore(bench.store, [dies])).export(root / "vm", machine="vm")
        except StoreUnavailable:
            pass
        else:
            raise AssertionError("the export was to end before its commit")
    for machine in MACHINES:
        disks[machine] = (root / machine).read_bytes()
    objects = {info.key: bytes(bench.store.get(info.key)) for info in bench.store.list("")}
    estate = Estate(bench, objects, disks)
    estate.catalogue = catalogue(bench)
    return estate


def catalogue(bench: Workbench) -> list[str]:
    return [
        f"{point.manifest.label} {point.object_hash}"
        for machine in machines(bench.repository)
        for point in points(bench.repository, machine)
    ]


EXPORTS = tuple((machine, host) for machine in MACHINES for host in ("known", "new"))
"""What can be exported next: by the host that did so before, or by one that knows nothing of it."""


class Wrong(AssertionError):
    """Damage was believed, or ended in an error that is of no use."""


@dataclass
class Trial:
    """The operations on a repository where `key` is damaged. Each gives what it should, or an error that names it."""

    estate: Estate
    bench: Workbench
    key: str
    exports: Sequence[tuple[str, str]] = EXPORTS
    noticed: set[str] = field(default_factory=set)
    """Operations that ended in such an error."""

    def run(self) -> None:
        for machine in MACHINES:
            for sequence in (1, 2, 3):
                label = f"{machine}@{sequence}"
                if label in ("vm@2", "db@1"):
                    continue
                clean = self._verify(machine, sequence)
                with self._typed(f"restore {label}"):
                    self._restore(machine, sequence, self.estate.disks[label])
                if clean and f"restore {label}" in self.noticed:
                    raise Wrong(f"{label} cannot be restored, and verify --read found nothing")
        with self._typed("list"):
            if catalogue(self.bench) != self.estate.catalogue:
                raise Wrong(f"the catalogue is {catalogue(self.bench)}, not {self.estate.catalogue}")
        with self._typed("forget"):
            forget(self.bench.repository, self.bench.point(3, "db"), reason="test")
        for machine, host in self.exports:
            self._export(machine, host)

    def _verify(self, machine: str, sequence: int) -> bool:
        """Whether both checks are clean."""
        name, before = f"verify {machine}@{sequence}", len(self.noticed)
        with self._typed(name):
            point = self.bench.point(sequence, machine)
            for check in (verify_listing(self.bench.repository, point), verify_reading(self.bench.repository, point)):
                if not check.ok:
                    self.noticed.add(name)
                    if not any(self.key in problem for problem in check.problems):
                        raise Wrong(f"{name} does not name it: {check.problems}")
        return len(self.noticed) == before

    def _restore(self, machine: str, sequence: int | None, wanted: bytes) -> None:
        """Right, or not there; and what is left of an unfinished one holds no byte that the point does not have."""
        shutil.rmtree(self.bench.out, ignore_errors=True)
        try:
            self.bench.restore(sequence, machine=machine)
            if self.bench.restored(machine=machine).read_bytes() != wanted:
                raise Wrong(f"{machine}@{sequence} was restored, and is not what it was")
        finally:
            for path in self.bench.out.rglob("*.raw"):
                if path.is_file():
                    _check_part(path.read_bytes(), wanted)

    def _export(self, machine: str, host: str) -> None:
        """One more point, from the host that keeps a copy of the parent's index or from one that knows nothing."""
        name = f"export {machine} from a {host} host"
        objects = {i.key: bytes(self.bench.store.get(i.key)) for i in self.bench.store.list("")}
        bench = self.estate.with_objects(objects, self.bench.out.parent / "export")
        shutil.rmtree(bench.state, ignore_errors=True)
        if host == "known":
            shutil.copytree(self.estate.bench.state, bench.state)
        with self._typed(name):
            bench.export(self.estate.bench.root / machine, machine=machine)
            trial = Trial(self.estate, bench, self.key)
            with trial._typed("restore"):
                trial._restore(machine, None, self.estate.disks[machine])
            if trial.noticed:
                self.noticed.add(f"restore after {name}")

    def _typed(self, name: str) -> _Typed:
        return _Typed(self, name)


@dataclass
class _Typed:
    """Anything but an error of failback that names the damaged object is a failure of the test."""

    trial: Trial
    name: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None or isinstance(error, Wrong):
            return False
        if not isinstance(error, FailbackError):
            raise Wrong(f"{self.name} raised {error!r}") from error
        if self.trial.key not in str(error):
            raise Wrong(f"{self.name} does not name {self.trial.key}: {error}") from error
        self.trial.noticed.add(self.name)
        return True


def _check_part(found: bytes, wanted: bytes) -> None:
    for at in range(0, len(found), CHUNK):
        part = found[at : at + CHUNK]
        if part != wanted[at : at + CHUNK] and any(part):
            raise Wrong(f"wrong bytes at {at} of an unfinished disk")


def truncations(data: bytes) -> Iterator[tuple[str, bytes]]:
    for size in sorted({0, 31, 128, len(data) // 2, len(data) - 33, len(data) - 1}):
        if 0 <= size < len(data):
            yield f"cut to {size} of {len(data)} bytes", data[:size]
    yield "a byte more", data + b"\0"


def flips(data: bytes, places: Iterator[int] | range | list[int]) -> Iterator[tuple[str, bytes]]:
    for at in places:
        wrong = bytearray(data)
        wrong[at] ^= 1 << (at % 8)
        yield f"bit {at % 8} of byte {at} flipped", bytes(wrong)


def kind_of(key: str, data: bytes) -> str:
    """What an object is for, so that one of each can be taken."""
    if key == "repository.json":
        return key
    return f"{key.split('/')[0]} {Kind(data[40]).name}"
