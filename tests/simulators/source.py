"""An estate in memory: machines that work, and a source for them. Every call to it may be cut short by a fault, before
it had an effect or after (a lost answer)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from manifests.machine import Machine, Nic
from pipeline.catalogue import Point
from pipeline.errors import SourceError, SourceUnavailable, Superseded, Unsupported
from pipeline.exporters.base import Exporter, Extent
from pipeline.finding import Finding
from pipeline.place import Power
from pipeline.source import Reading, SourceAbilities, SourceContext, SourceState, Stopped
from pipeline.transfer.export_request import ChangedBlocks, DiskSource

Phase = Literal["before", "after"]
WORD = 8
"""Bytes of what a client writes: its number."""
BLOCK = 4096
"""Grain of the map of changes."""


@dataclass
class SimulatedMachine:
    """A machine whose service writes the number of each request to the first disk before it acknowledges it."""

    disks: list[bytearray]
    hardware: Machine
    power: Power = "on"
    services: bool = True
    locked: bool = False
    retired: bool = False
    epoch: int = 0
    touched: bool = False
    """quiesce, stop or lock has begun, and resume did not end."""
    starts: int = 1
    requests: int = 0
    acknowledged: int = 0
    changed: dict[int, set[int]] = field(default_factory=dict)
    """Point -> blocks of the first disk that changed since; 0: since the last reading."""

    @property
    def works(self) -> bool:
        return self.power == "on" and self.services

    def written(self) -> int:
        """The last number on its disk."""
        return int.from_bytes(self.disks[0][:WORD], "little")

    def put(self, disk: int, offset: int, data: bytes) -> None:
        self.disks[disk][offset : offset + len(data)] = data
        for blocks in self.changed.values():
            blocks.update(range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1))


@dataclass
class Estate:
    """What outlives every client. `fault` is called before and after each call with its name, `verb machine`, and the
    phase. `watch` is told of each change of a machine's power, when it happens."""

    machines: dict[str, SimulatedMachine] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fault: Callable[[str, Phase], None] = field(default=lambda _name, _phase: None)
    watch: Callable[[str, Power], None] = field(default=lambda _machine, _power: None)
    silent: bool = False
    """It does not answer."""

    def add(self, name: str, *sizes: int) -> SimulatedMachine:
        """A machine that works."""
        hardware = Machine(name=name, memory_bytes=256 << 20, nics=(Nic(mac="52:54:00:00:00:01", network="lan"),))
        self.machines[name] = SimulatedMachine([bytearray(size) for size in sizes or (1 << 20,)], hardware)
        return self.machines[name]

    def request(self, name: str) -> int | None:
        """A client's: the number that the machine acknowledged, None when it does not answer."""
        machine = self.machines[name]
        if not machine.works:
            return None
        machine.requests += 1
        machine.put(0, 0, machine.requests.to_bytes(WORD, "little"))
        machine.acknowledged = machine.requests
        return machine.acknowledged

    def machine(self, name: str) -> SimulatedMachine:
        if name not in self.machines:
            raise SourceError(f"there is no machine {name}", remedy="correct the name")
        return self.machines[name]

    @contextmanager
    def call(self, verb: str, name: str, *, epoch: int | None = None) -> Iterator[SimulatedMachine]:
        """One call, which the estate fences as a platform would that can."""
        called = f"{verb} {name}"
        self.calls.append(called)
        self.fault(called, "before")
        if self.silent:
            raise SourceUnavailable("the estate does not answer", remedy="look again")
        machine = self.machine(name)
        if epoch is not None:
            if epoch < machine.epoch:
                raise Superseded(f"{name} belongs to ownership {machine.epoch}, this is {epoch}")
            machine.epoch = epoch
        yield machine
        self.fault(called, "after")

    def turn(self, name: str, power: Power) -> None:
        """A person, or a call, switches it."""
        machine = self.machine(name)
        if machine.power == "off" and power == "on":
            machine.starts += 1
            machine.services = True
        if machine.power != power:
            machine.power = power
            self.watch(name, power)


class MemoryExporter(Exporter):
    """A copy of a disk, of one moment."""

    sector_size = 512
    identity = None

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.size, self._data = name, len(data), data

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        if start < min(end, self.size):
            yield Extent(start, min(end, self.size) - start, zero=False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]

    def check_unchanged(self) -> None:
        """It is a copy."""

    def close(self) -> None:
        """Nothing is open."""


class SimulatedSource:
    """A `pipeline.source.Source`. Settings: `abilities`, names and values that differ from the source's."""

    def __init__(self, context: SourceContext, estate: Estate, abilities: SourceAbilities | None = None) -> None:
        self._context = context
        self._estate = estate
        self.abilities = abilities or SourceAbilities(changes=True, quiesce="services")

    def able(self, machine: str, settings: Mapping[str, Any]) -> SourceAbilities:
        return replace(self.abilities, **settings.get("abilities", {}))

    def preflight(self, machine: str, settings: Mapping[str, Any]) -> list[Finding]:
        if machine not in self._estate.machines:
            return [Finding("error", "machine", f"there is no machine {machine}", "correct the name")]
        return []

    def observe(self, machine: str, settings: Mapping[str, Any]) -> SourceState:
        with self._estate.call("observe", machine) as found:
            quiesced = found.power == "on" and not found.services
            return SourceState(found.power, found.locked, quiesced, found.epoch, f"{machine} is {found.power}")

    @contextmanager
    def reading(
        self, machine: str, settings: Mapping[str, Any], *, parent: Point | None, final: bool
    ) -> Iterator[Reading]:
        able = self.able(machine, settings)
        if not able.reads:
            raise Unsupported("it gives no disks")
        with self._estate.call("reading", machine) as found:
            if final and found.works:
                raise SourceError(f"{machine} works: it is neither quiesced nor off", remedy="quiesce it first")
            copies = [bytes(disk) for disk in found.disks]
            since = parent.manifest.sequence if parent is not None else 0
            blocks = found.changed.get(since) if since else None
            found.changed[0] = set()
            consistency: Literal["application", "crash"] = "crash" if found.works else "application"
        disks = []
        for number, copy in enumerate(copies):
            changes = None
            if able.changes and blocks is not None and number == 0:
                changes = ChangedBlocks(since, tuple((block * BLOCK, BLOCK) for block in sorted(blocks)))
            disks.append(DiskSource(MemoryExporter(f"disk{number}", copy), f"disk{number}", changes=changes))
        yield Reading(tuple(disks), found.hardware, consistency)

    def exported(self, machine: str, settings: Mapping[str, Any], point: Point) -> None:
        with self._estate.call("exported", machine) as found:
            found.changed = {point.manifest.sequence: found.changed.get(0, set())} if 0 in found.changed else {}

    def quiesce(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        if self.able(machine, settings).quiesce == "none":
            raise Unsupported("nothing in it can be quiesced")
        with self._estate.call("quiesce", machine, epoch=epoch) as found:
            if found.power != "off":
                found.touched = True
                found.services = False

    def stop(self, machine: str, settings: Mapping[str, Any], *, epoch: int, seconds: float = 120.0) -> None:
        with self._estate.call("stop", machine, epoch=epoch) as found:
            if found.power != "off":
                found.touched = True
                self._estate.turn(machine, "off")

    def prove_stopped(self, machine: str, settings: Mapping[str, Any]) -> Stopped:
        proof = self.able(machine, settings).proof
        if proof == "none":
            raise Unsupported(f"nobody can say whether {machine} is off")
        with self._estate.call("prove_stopped", machine) as found:
            if found.power != "off":
                raise SourceError(f"{machine} is {found.power}", remedy="stop it first")
        return Stopped(proof, f"the estate says that {machine} is off")

    def lock(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        if not self.able(machine, settings).locks:
            raise Unsupported("nothing keeps it from starting")
        with self._estate.call("lock", machine, epoch=epoch) as found:
            if found.power != "off":
                raise SourceError(f"{machine} is {found.power}: it cannot be locked", remedy="stop it first")
            found.touched = True
            found.locked = True

    def resume(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        """In steps, each a call."""
        with self._estate.call("resume", machine, epoch=epoch) as found:
            touched = found.touched
        if not touched:
            return
        with self._estate.call("unlock", machine, epoch=epoch):
            found.locked = False
        with self._estate.call("start", machine, epoch=epoch):
            self._estate.turn(machine, "on")
        with self._estate.call("services", machine, epoch=epoch):
            found.services = True
            found.touched = False

    def retire(self, machine: str, settings: Mapping[str, Any], *, epoch: int) -> None:
        with self._estate.call("retire", machine, epoch=epoch) as found:
            if found.power != "off":
                raise SourceError(f"{machine} is {found.power}: it cannot be retired", remedy="stop it first")
            found.retired = True

    def close(self) -> None:
        """There are no connections."""
