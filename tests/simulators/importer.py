"""An importer for the platform in memory, with any combination of abilities."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifests.manifest import Disk as PointDisk
from pipeline.catalogue import Point
from pipeline.errors import TargetError, Unsupported
from pipeline.exporters.base import Extent
from pipeline.finding import Finding
from pipeline.place import Build, CommandResult, DiskRestored, Endpoint, Observation, Place, Purpose, Stage
from pipeline.store.base import Bytes
from pipeline.target import Abilities, Context, Intent
from pipeline.transfer.local import checked, opened
from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.stage import Stage as Known
from pipeline.wanted import Network, Wanted
from pipeline.writers.base import BlockWriter
from simulators.platform import Disk, Machine, Platform, Tags

PICTURE = b"\x89PNG\r\n\x1a\n"


class SimulatedImporter:
    """Believes the platform; keeps nothing but what is known of the content of its disks, below `context.state`."""

    def __init__(self, context: Context, platform: Platform, abilities: Abilities) -> None:
        self.abilities = abilities
        self._context = context
        self._platform = platform

    # -- before ----------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        return []

    def preflight(self, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
        known = self._platform.networks
        return [
            Finding("error", f"network {n.name}", f"there is no network {n.name}", f"map it to {', '.join(known)}")
            for n in wanted.networks
            if n.name is not None and n.name not in known
        ]

    def find(self, marker: uuid.UUID) -> Place | None:
        platform, text = self._platform, str(marker)
        machine = next(iter(platform.find_machines(marker=text)), None)
        if machine is None and not platform.find_disks(marker=text):
            return None
        name = next(iter([*platform.find_disks(marker=text), *platform.find_machines(marker=text)])).tags["machine"]
        stage = self._staged(marker)
        adopted = bool(machine and machine.tags.get("adopted"))
        layers = platform.find_disks(marker=text, role="layer")
        if (machine is None and not layers) or adopted:
            state = "staged" if stage else "staging" if self._begun(marker) else "prepared"
            return Place(marker, name, state, stage, adopted=adopted)
        if machine is None:
            return Place(marker, name, "layered", stage, self._half_made(marker, layers[0]))
        build = self._build_of(machine)
        if machine.on:
            return Place(marker, name, "running", stage, build)
        return Place(marker, name, "kept" if machine.tags.get("kept") else "layered", stage, build)

    def _half_made(self, marker: uuid.UUID, layer: Disk) -> Build:
        """What `build` was about to make, or `finish` to take away, when only layers are there."""
        purpose: Purpose = "rehearsal" if layer.tags["purpose"] == "rehearsal" else "production"
        return Build(marker, purpose, layer.tags["called"])

    def _begun(self, marker: uuid.UUID) -> bool:
        return any(d.tags.get("state") != "new" for d in self._platform.find_disks(marker=str(marker), role="stage"))

    def prepare(self, point: Point, wanted: Wanted, marker: uuid.UUID) -> Place:
        if self.abilities.patch == "in place":
            for disk in point.manifest.disks:
                if not self._platform.find_disks(**self._tags(marker, "stage", disk.number)):
                    tags = self._tags(marker, "stage", disk.number) | self._about(point) | {"state": "new"}
                    self._platform.create_disk(self._rounded(disk.size), tags)
        return self.find(marker) or Place(marker, point.manifest.machine.name, "prepared")

    # -- staging ---------------------------------------------------------------------------------------------------

    def stage(self, place: Place, point: Point, wanted: Wanted, *, instant: bool = False) -> Stage:
        self._check_state(place.marker)
        platform, label, marker = self._platform, point.manifest.label, place.marker
        with opened(self._context.seeds) as seeds:
            done = []
            for disk in point.manifest.disks:
                target = self._candidate(marker, point, disk)
                known = Known(self._known(target))
                writer = _Writer(platform, target)
                restore = DiskRestore(
                    self._context.repository,
                    point,
                    disk,
                    writer,
                    known,
                    seeds=[s for s in seeds if s.size == disk.size],
                    parallel=2,
                    watch=checked(self._context.control),
                )
                result = restore.run()
                done.append(
                    DiskRestored(
                        disk.number,
                        target.id,
                        result.mode,
                        result.reason,
                        disk.digest,
                        result.proof,
                        result.counters,
                    )
                )
                proved = str(platform.disks[target.id].version)
                platform.tag_disk(
                    target.id, state="staged", point=label, complete="" if instant else "yes", proved=proved
                )
        self._drop_older(marker, label)
        stage = self._staged(marker)
        assert stage is not None
        return Stage(stage.machine, stage.sequence, stage.guard, tuple(done), stage.complete, stage.ref)

    def _check_state(self, marker: uuid.UUID) -> None:
        place = self.find(marker)
        if place and place.build and not (self.abilities.stage_while_layered and place.state != "kept"):
            raise TargetError(f"{place.machine} is {place.state}: its disks cannot be staged")

    def _candidate(self, marker: uuid.UUID, point: Point, disk: PointDisk) -> Disk:
        """The disk to restore into: the one there, or by the ability `patch` a new one."""
        platform, label = self._platform, point.manifest.label
        found = platform.find_disks(**self._tags(marker, "stage", disk.number))
        if self.abilities.patch == "in place":
            [target] = found
            if target.tags.get("point") != label or target.tags["state"] != "staged":
                platform.tag_disk(target.id, state="staging", point=label)
            return target
        mine = [d for d in found if d.tags.get("point") == label]
        if mine:
            return mine[-1]
        old = next((d for d in reversed(found) if d.tags["state"] == "staged"), None)
        tags = self._tags(marker, "stage", disk.number) | self._about(point) | {"state": "staging", "point": label}
        if self.abilities.patch == "child" and old is not None and not platform.find_machines(marker=str(marker)):
            number = platform.copy_disk(old.id, tags)
            if self._known(old).exists():
                shutil.copytree(self._known(old), self._known(platform.disks[number]), dirs_exist_ok=True)
        else:
            number = platform.create_disk(self._rounded(disk.size), tags)
        return platform.disks[number]

    def _drop_older(self, marker: uuid.UUID, label: str) -> None:
        for disk in self._platform.find_disks(marker=str(marker), role="stage"):
            if disk.tags.get("point") != label:
                self._forget(disk)

    def _staged(self, marker: uuid.UUID) -> Stage | None:
        """The newest complete set of disks."""
        sets: dict[str, list[Disk]] = {}
        for disk in self._platform.find_disks(marker=str(marker), role="stage", state="staged"):
            sets.setdefault(disk.tags["point"], []).append(disk)
        for label, disks in reversed(list(sets.items())):
            if len(disks) == int(disks[0].tags["of"]):
                machine, _, sequence = label.partition("@")
                ref = {d.tags["number"]: d.id for d in disks}
                complete = all(d.tags.get("complete") for d in disks)
                guard = ",".join(f"{d.id}:{d.tags['proved']}" for d in disks)
                return Stage(machine, int(sequence), guard, complete=complete, ref=ref)
        return None

    def forecast(self, place: Place | None, point: Point, wanted: Wanted) -> list[DiskRestored]:
        found = []
        for disk in point.manifest.disks:
            staged = place.stage.ref.get(str(disk.number)) if place and place.stage else None
            target = self._platform.disks[staged] if staged else None
            shown = target or Disk("new", disk.size, {}, bytearray(disk.size), 0)
            known = Known(self._known(shown) if target else Path("/nonexistent"))
            restore = DiskRestore(
                self._context.repository, point, disk, _Writer(self._platform, shown, fresh=target is None), known
            )
            mode, reason, to_move = restore.to_move()
            found.append(
                DiskRestored(disk.number, shown.id, mode, reason, disk.digest, "dry run", restore.counters, to_move)
            )
        return found

    def check(self, stage: Stage) -> str:
        disks = [self._platform.disks.get(number) for number in stage.ref.values()]
        if not all(disks):
            return "a disk is gone"
        return "" if _guard([d for d in disks if d]) == stage.guard else "somebody wrote to a disk"

    # -- machines --------------------------------------------------------------------------------------------------

    def build(self, place: Place, stage: Stage, wanted: Wanted, purpose: Purpose) -> Build:
        platform, marker, layer = self._platform, place.marker, self.abilities.layer
        if layer == "none" and purpose == "rehearsal":
            raise Unsupported("there are no layers here", remedy="rehearse elsewhere")
        self._finish_drop(marker)
        found = next(iter(platform.find_machines(marker=str(marker))), None)
        if found is not None:
            if (found.tags["purpose"], found.tags["called"]) != (purpose, wanted.name):
                raise TargetError(f"{found.name} is built there already", remedy="drop it first")
            return self._build_of(found)
        about = {"machine": place.machine, "purpose": purpose, "called": wanted.name}
        if any(about.items() - d.tags.items() for d in platform.find_disks(marker=str(marker), role="layer")):
            raise TargetError(f"another machine is being built for {place.machine}", remedy="drop it first")
        disks = [self._below(marker, int(number), disk, about) for number, disk in sorted(stage.ref.items())]
        tags = about | {"marker": str(marker)}
        if layer == "none":
            tags["kept"] = "yes"
        networks = [n.name for n in wanted.networks]
        early = networks if self.abilities.network_at == "build" else [None for _ in networks]
        number = platform.create_machine(wanted.name, tags, disks, early, image=not self.abilities.create_off)
        return self._build_of(platform.machines[number])

    def _below(self, marker: uuid.UUID, number: int, disk: str, about: Tags) -> str:
        """What the machine gets for a staged disk."""
        tags = self._tags(marker, "layer", number) | about
        if self.abilities.layer == "none":
            return disk
        found = self._platform.find_disks(**tags)
        if found:
            return found[0].id
        make = (
            self._platform.layer_disk if self.abilities.layer in ("snapshot", "overlay") else self._platform.copy_disk
        )
        return make(disk, tags)

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        if self.abilities.power == "none":
            raise Unsupported("nobody can switch it on but a person")
        machine = self._machine(build)
        if not machine.on:
            if self.abilities.network_at == "boot":
                self._platform.connect(machine.id, [n.name for n in networks])
            self._platform.power_on(machine.id)
        return self._build_of(machine)

    def observe(self, build: Build) -> Observation:
        machine = next(iter(self._platform.find_machines(marker=str(build.marker))), None)
        if machine is None:
            return Observation("off", reason="it is gone")
        console = machine.console if "text" in self.abilities.console else ""
        beats = machine.on if "heartbeat" in self.abilities.guest else None
        return Observation("on" if machine.on else "off", beats, console=console, reason=machine.reason)

    def picture(self, build: Build) -> bytes | None:
        return PICTURE if "picture" in self.abilities.console and self._machine(build).on else None

    def written(self, build: Build) -> int | None:
        """Bytes in which the layers differ from what is below."""
        found = 0
        for layer in self._platform.find_disks(marker=str(build.marker), role="layer"):
            below = self._platform.disks.get(layer.base or "")
            if below is None:
                return None
            found += sum(a != b for a, b in zip(layer.data, below.data, strict=True))
        return found

    def reach(self, build: Build, port: int) -> Endpoint | None:
        return None

    def accepted(self, build: Build, port: int) -> bool | None:
        return None

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        if "command" not in self.abilities.guest:
            raise Unsupported("nothing in the guest takes commands")
        if not self._machine(build).on:
            raise TargetError("it is off")
        if list(arguments) == ["date", "+%s"]:
            return CommandResult(0, str(int(time.time() + self._platform.ahead)).encode(), b"")
        return CommandResult(0, " ".join(arguments).encode(), b"")

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        machine = self._machine(build)
        if machine.on and self.abilities.power != "api":
            raise Unsupported("nobody can switch it off from here")
        if machine.on and not (seconds and self._platform.ask_to_shut_down(machine.id)):
            self._platform.power_off(machine.id)
        return self.observe(build)

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        platform, marker = self._platform, str(place.marker)
        machine = next(iter(platform.find_machines(marker=marker)), None)
        stage = self._staged(place.marker)
        if stage is None:
            raise TargetError("the stage is gone")
        if machine is not None and machine.on:
            raise TargetError(f"{machine.name} runs", remedy="stop it first")
        if not keep:
            if machine is not None and (machine.tags.get("kept") or machine.tags.get("keeping")):
                raise TargetError(f"{machine.name} is kept: there is no layer")
            if machine is not None:
                platform.tag_machine(machine.id, dropping="yes")
            for layer in platform.find_disks(marker=marker, role="layer"):
                platform.tag_disk(layer.id, dropping="yes")
            self._finish_drop(place.marker)
            return stage
        if machine is None or machine.tags.get("dropping"):
            raise TargetError("there is nothing to keep")
        if not machine.tags.get("kept"):
            platform.tag_machine(machine.id, keeping="yes")
            for layer in platform.find_disks(marker=marker, role="layer"):
                if layer.base:
                    platform.merge_layer(layer.id)
            platform.tag_machine(machine.id, kept="yes")
        return stage

    def _finish_drop(self, marker: uuid.UUID) -> None:
        """Take away what `finish` began to."""
        for machine in self._platform.find_machines(marker=str(marker), dropping="yes"):
            for layer in self._platform.find_disks(marker=str(marker), role="layer"):
                self._platform.tag_disk(layer.id, dropping="yes")
            self._platform.delete_machine(machine.id)
        for layer in self._platform.find_disks(marker=str(marker), role="layer", dropping="yes"):
            self._platform.delete_disk(layer.id)

    def remove(self, marker: uuid.UUID) -> bool:
        platform, found = self._platform, False
        for machine in platform.find_machines(marker=str(marker)):
            found = True
            if machine.tags.get("adopted"):
                platform.tag_machine(machine.id, marker="")
                continue
            if machine.on:
                platform.power_off(machine.id)
            platform.delete_machine(machine.id)
        for role in ("layer", "stage"):
            for disk in platform.find_disks(marker=str(marker), role=role):
                found = True
                self._forget(disk)
        return found

    def adopt(self, reference: str, marker: uuid.UUID) -> Place:
        if not self.abilities.adopts:
            raise Unsupported("nothing can be taken over here")
        machine = next((m for m in self._platform.machines.values() if m.name == reference), None)
        if machine is None:
            raise TargetError(f"there is no machine {reference}")
        if machine.tags.get("marker") not in (None, "", str(marker)):
            raise TargetError(f"{reference} belongs to another place")
        if machine.tags.get("marker") != str(marker):
            self._platform.tag_machine(machine.id, marker=str(marker), machine=reference, adopted="yes")
        return Place(marker, reference, "prepared", adopted=True)

    def close(self) -> None:
        pass

    # -- details ---------------------------------------------------------------------------------------------------

    def _forget(self, disk: Disk) -> None:
        shutil.rmtree(self._known(disk), ignore_errors=True)
        self._platform.delete_disk(disk.id)

    def _known(self, disk: Disk) -> Path:
        return self._context.state / disk.id

    def _machine(self, build: Build) -> Machine:
        found = self._platform.find_machines(marker=str(build.marker))
        if not found:
            raise TargetError(f"{build.name} is gone")
        return found[0]

    def _build_of(self, machine: Machine) -> Build:
        networks = tuple(Network(name=name) for name in machine.networks)
        marker = uuid.UUID(machine.tags["marker"])
        purpose: Purpose = "rehearsal" if machine.tags["purpose"] == "rehearsal" else "production"
        booted = machine.starts > 0 and not machine.tags.get("dropping")
        return Build(marker, purpose, machine.name, networks, booted, {"machine": machine.id})

    def _tags(self, marker: uuid.UUID, role: str, number: int) -> Tags:
        return {"marker": str(marker), "role": role, "number": str(number)}

    def _about(self, point: Point) -> Tags:
        return {"machine": point.manifest.machine.name, "of": str(len(point.manifest.disks))}

    def _rounded(self, size: int) -> int:
        step = self.abilities.size_step
        return -(-size // step) * step


def _guard(disks: Sequence[Disk]) -> str:
    return ",".join(f"{disk.id}:{disk.version}" for disk in disks)


class _Writer(BlockWriter):
    def __init__(self, platform: Platform, disk: Disk, *, fresh: bool = False) -> None:
        self.name, self.size = disk.id, disk.size
        self.fresh = fresh
        self._platform, self._disk = platform, disk
        self._lock = threading.Lock()

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        with self._lock:
            for buffer in buffers:
                self._platform.write_disk(self.name, offset, bytes(buffer))
                offset += len(buffer)

    def discard(self, offset: int, length: int) -> None:
        self.write(offset, [bytes(length)])

    def flush(self) -> None:
        pass

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        yield Extent(start, end - start, False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._disk.data[offset : offset + len(buffer)]

    def guard(self) -> str:
        return f"version:{self._disk.version}"

    def close(self) -> None:
        pass
