"""A platform in memory: disks, machines, networks, power. It refuses what real ones refuse, and forgets nothing.

It makes no second look for its callers: whoever creates a thing twice has two. Every call may be cut short by a fault,
before it had an effect or after (a lost answer).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import TargetBusy, TargetError

Tags = dict[str, str]
Guest = Literal["works", "halts", "hangs"]
"""works: shuts down when asked. halts: goes off at once. hangs: only cutting its power stops it."""
WRITES = b"the guest was here"
"""What a guest writes to the begin of its first disk when it starts."""


@dataclass
class Disk:
    id: str
    size: int
    tags: Tags
    data: bytearray
    version: int
    """Changes with every write, whoever wrote; a copy has its original's."""
    base: str | None = None
    """The disk below, when this is a snapshot's layer. What is below cannot be written."""


@dataclass
class Machine:
    id: str
    name: str
    tags: Tags
    disks: list[str]
    networks: list[str | None]
    on: bool = False
    image: bool = False
    """A registered image: starts by becoming an instance."""
    starts: int = 0
    console: str = ""
    reason: str = ""


@dataclass
class Platform:
    """What outlives every client. `fault` is called before and after each call with its name and the phase."""

    networks: set[str] = field(default_factory=lambda: {"lan"})
    guest: Guest = "works"
    ahead: float = 0.0
    """Seconds by which the guests' clocks differ from this host's."""
    disks: dict[str, Disk] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fault: Callable[[str, Literal["before", "after"]], None] = field(default=lambda _name, _phase: None)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # -- disks -----------------------------------------------------------------------------------------------------

    def create_disk(self, size: int, tags: Tags) -> str:
        with self._call("create_disk"):
            disk = Disk(self._id("disk"), size, dict(tags), bytearray(size), next(self._numbers))
            self.disks[disk.id] = disk
        return disk.id

    def copy_disk(self, source: str, tags: Tags) -> str:
        with self._call("copy_disk"):
            old = self._disk(source)
            self._refuse_running(source)
            new = Disk(self._id("disk"), old.size, dict(tags), bytearray(old.data), old.version)
            self.disks[new.id] = new
        return new.id

    def layer_disk(self, base: str, tags: Tags) -> str:
        """A snapshot: what is written from now on goes into the layer."""
        with self._call("layer_disk"):
            below = self._disk(base)
            self._refuse_running(base)
            layer = Disk(self._id("layer"), below.size, dict(tags), bytearray(below.data), below.version, base)
            self.disks[layer.id] = layer
        return layer.id

    def merge_layer(self, layer: str) -> None:
        """Its content goes into the disk below, and machines use that one."""
        with self._call("merge_layer"):
            upper = self._disk(layer)
            if upper.base is None:
                raise TargetError(f"{layer} is no layer")
            self._refuse_running(layer)
            lower = self._disk(upper.base)
            lower.data, lower.version = upper.data, upper.version
            for machine in self.machines.values():
                machine.disks = [lower.id if d == layer else d for d in machine.disks]
            del self.disks[layer]

    def write_disk(self, number: str, offset: int, data: bytes) -> None:
        with self._call("write_disk"):
            disk = self._disk(number)
            self._refuse_running(number)
            if any(other.base == number for other in self.disks.values()):
                raise TargetBusy(f"{number} has a snapshot: it cannot be written")
            if offset + len(data) > disk.size:
                raise TargetError(f"{number} ends before {offset + len(data)}")
            self._written(disk, offset, data)

    def tag_disk(self, number: str, **tags: str) -> None:
        with self._call("tag_disk"):
            self._disk(number).tags.update(tags)

    def delete_disk(self, number: str) -> None:
        with self._call("delete_disk"):
            self._disk(number)
            for machine in self.machines.values():
                if number in machine.disks:
                    raise TargetBusy(f"{number} is attached to {machine.name}")
            if any(other.base == number for other in self.disks.values()):
                raise TargetBusy(f"{number} has a snapshot")
            del self.disks[number]

    def find_disks(self, **tags: str) -> list[Disk]:
        """In the order of their making."""
        return [disk for disk in self.disks.values() if tags.items() <= disk.tags.items()]

    # -- machines --------------------------------------------------------------------------------------------------

    def create_machine(
        self, name: str, tags: Tags, disks: list[str], networks: list[str | None], *, image: bool = False
    ) -> str:
        with self._call("create_machine"):
            if any(machine.name == name for machine in self.machines.values()):
                raise TargetError(f"there is a machine {name} already", remedy="choose another name")
            self._check_networks(networks)
            for disk in disks:
                self._disk(disk)
                if any(disk in machine.disks for machine in self.machines.values()):
                    raise TargetBusy(f"{disk} is attached to another machine")
            machine = Machine(self._id("machine"), name, dict(tags), list(disks), list(networks), image=image)
            self.machines[machine.id] = machine
        return machine.id

    def connect(self, number: str, networks: list[str | None]) -> None:
        with self._call("connect"):
            self._check_networks(networks)
            self._machine(number).networks = list(networks)

    def power_on(self, number: str) -> None:
        with self._call("power_on"):
            machine = self._machine(number)
            if machine.on:
                raise TargetError(f"{machine.name} is on already")
            for disk in machine.disks:
                self._refuse_running(disk)
            machine.on, machine.image = True, False
            machine.starts += 1
            machine.console, machine.reason = "starting\n", ""
            self._written(self._disk(machine.disks[0]), 0, WRITES)
            if self.guest == "halts":
                machine.on, machine.reason = False, "the guest switched itself off"

    def ask_to_shut_down(self, number: str) -> bool:
        """Whether it went off."""
        with self._call("ask_to_shut_down"):
            machine = self._machine(number)
            if not machine.on:
                raise TargetError(f"{machine.name} is off already")
            if self.guest != "hangs":
                machine.on, machine.reason = False, "shut down"
            return not machine.on

    def power_off(self, number: str) -> None:
        with self._call("power_off"):
            machine = self._machine(number)
            if not machine.on:
                raise TargetError(f"{machine.name} is off already")
            machine.on, machine.reason = False, "power was cut"

    def tag_machine(self, number: str, **tags: str) -> None:
        with self._call("tag_machine"):
            self._machine(number).tags.update(tags)

    def delete_machine(self, number: str) -> None:
        """Its disks stay."""
        with self._call("delete_machine"):
            machine = self._machine(number)
            if machine.on:
                raise TargetError(f"{machine.name} is on: it cannot be deleted")
            del self.machines[number]

    def find_machines(self, **tags: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if tags.items() <= machine.tags.items()]

    # -- others ----------------------------------------------------------------------------------------------------

    def scribble(self, number: str, offset: int, data: bytes) -> None:
        """Somebody who is not us writes, whatever would refuse us."""
        self._written(self.disks[number], offset, data)

    def _written(self, disk: Disk, offset: int, data: bytes) -> None:
        disk.data[offset : offset + len(data)] = data
        disk.version = next(self._numbers)

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        self.calls.append(name)
        self.fault(name, "before")
        yield
        self.fault(name, "after")

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def _disk(self, number: str) -> Disk:
        if number not in self.disks:
            raise TargetError(f"there is no disk {number}")
        return self.disks[number]

    def _machine(self, number: str) -> Machine:
        if number not in self.machines:
            raise TargetError(f"there is no machine {number}")
        return self.machines[number]

    def _check_networks(self, networks: list[str | None]) -> None:
        for name in networks:
            if name is not None and name not in self.networks:
                raise TargetError(f"there is no network {name}", remedy=f"there are {', '.join(sorted(self.networks))}")

    def _refuse_running(self, disk: str) -> None:
        for machine in self.machines.values():
            if machine.on and disk in machine.disks:
                raise TargetBusy(f"{disk} is in use by {machine.name}, which runs")
