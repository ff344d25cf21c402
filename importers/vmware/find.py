"""What there is of a place: its machines, found by their instance UUIDs, and what their marks say."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from importers.vmware import guard
from importers.vmware.connection import Connection
from importers.vmware.layer import Layer, layer_of
from importers.vmware.machines import find_machine
from importers.vmware.vm import Vm, look
from pipeline.place import Build, Place, Stage, State
from pipeline.target import Journal, part_of
from pipeline.wanted import Network

MACHINE = "machine"
"""Mark: name of the machine at the source."""
SEQUENCE = "sequence"
"""Mark: the recovery point that the disks hold, whole and proved. The last thing that staging sets."""
STAGING = "staging"
"""Mark, while a worker writes: what is being written, as JSON (importers.vmware.patch)."""
EMPTY = "empty"
"""Value of STAGING: nothing was ever written to the disks."""
SEEDS = "seeds"
"""Mark, while a worker writes: surviving disks that may be plugged into it to be read, as JSON
(importers.vmware.seeds)."""
AGENT = "agent"
"""Mark of a worker: the agent that was told to run on it."""
NAME = "name"
"""Mark: name of the machine on the platform while nothing is built on it."""
BUILT, BOOTED, KEPT, NETWORKS = "built", "booted", "kept", "networks"
SLOTS = (0, 1)
"""Machines that a place may have at a time."""


@dataclass(frozen=True, slots=True)
class Found:
    """`vm` counts; `rest` are half made, or of an earlier point that a newer one has replaced."""

    marker: uuid.UUID
    vm: Vm | None
    layer: Layer | None
    rest: tuple[Vm, ...]
    guard: str
    """Token of what this host noted of it; empty: nothing."""

    @property
    def stage(self) -> Stage | None:
        """None: there is none that is whole."""
        if self.vm is None or SEQUENCE not in self.vm.marks:
            return None
        sequence = int(self.vm.marks[SEQUENCE])
        ref = {"machine": self.vm.id, "marker": str(self.marker)}
        return Stage(self.vm.marks.get(MACHINE, ""), sequence, self.guard, ref=ref)

    @property
    def kept(self) -> bool:
        """What the machine wrote is on the staged disks, or on the way there; also when somebody else removed the
        snapshot that was its layer."""
        return self.vm is not None and (KEPT in self.vm.marks or (self.layer is None and BOOTED in self.vm.marks))

    @property
    def build(self) -> Build | None:
        vm = self.vm
        if vm is None or not (self.layer or self.kept):
            return None
        booted = BOOTED in vm.marks or vm.runs
        if self.layer is None:
            return Build(self.marker, "production", vm.name, _networks(vm), True, {"machine": vm.id})
        # The marks know where it was moved since; a machine that is only half built has none.
        networks = _networks(vm) if NETWORKS in vm.marks else self.layer.networks
        return Build(self.marker, self.layer.purpose, self.layer.name, networks, booted, {"machine": vm.id})

    def place(self) -> Place | None:
        """As the protocol has it."""
        vm = self.vm or next(iter(self.rest), None)
        if vm is None:
            return None
        state: State = "staging"
        if self.build is not None:
            off: State = "kept" if self.kept and self.layer is None else "layered"
            state = "running" if vm.runs else off
        elif self.stage is not None:
            state = "staged"
        elif vm.marks.get(STAGING) == EMPTY:
            state = "prepared"
        name = vm.marks.get(MACHINE, "")
        return Place(self.marker, name, state, self.stage, self.build, ref={"machine": vm.id, "name": vm.name})


def networks_text(networks: Sequence[Network]) -> str:
    """For the mark NETWORKS."""
    return json.dumps([network.model_dump() for network in networks])


def _networks(vm: Vm) -> tuple[Network, ...]:
    return vm.parsed(NETWORKS, _networks_of, "[]")


def _networks_of(text: str) -> tuple[Network, ...]:
    return tuple(Network.model_validate(network) for network in json.loads(text))


def marker_of_slot(marker: uuid.UUID, slot: int) -> uuid.UUID:
    """Instance UUID of the place's machine number `slot`."""
    return part_of(marker, "machine", slot)


def find(connection: Connection, marker: uuid.UUID, journal: Journal) -> Found:
    """Of two whole machines the one with something built on it counts, else that of the later point."""
    there = []
    for slot in SLOTS:
        machine = find_machine(connection, marker_of_slot(marker, slot))
        vm = look(connection, machine) if machine is not None else None
        if vm is not None:
            there.append(vm)
    whole = [vm for vm in there if SEQUENCE in vm.marks or STAGING in vm.marks]
    noted = guard.machine_of(journal)
    whole.sort(
        key=lambda vm: (
            layer_of(vm, marker) is not None or KEPT in vm.marks or BOOTED in vm.marks,
            int(vm.marks.get(SEQUENCE, 0)),
            vm.id == noted,
        )
    )
    vm = whole[-1] if whole else None
    return Found(
        marker,
        vm,
        layer_of(vm, marker) if vm else None,
        tuple(other for other in there if vm is None or other.object != vm.object),
        guard.token_of(journal),
    )
