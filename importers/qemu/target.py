"""The importer `qemu`: `failback import MACHINE --to qemu`.

A place is a folder (`importers.qemu.folder`) below `--out` or the importer's own state; the machine in it is a process
that a person could have started with the `start.sh` there. Nothing is remembered elsewhere: states follow from the
folder and the processes of this host.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from importers.qemu import agent, preflight
from importers.qemu.accelerator import Accelerator, Wish, choose
from importers.qemu.adopt import adopt_disks, let_go, nodes_of, refuse_adopted
from importers.qemu.build import define
from importers.qemu.definition import Definition, load
from importers.qemu.folder import PURPOSES, Folder, Record, find_folder, folder_for
from importers.qemu.forward import HOST, accepted, forward
from importers.qemu.hardware import cards_of
from importers.qemu.machine import definition_in, describe, drop, drop_overlays, drop_rest, make, merged, started
from importers.qemu.observe import agent_is_there, observe
from importers.qemu.options import BINARY, parse_options
from importers.qemu.picture import take_picture
from importers.qemu.power import kill, switch_off, switch_on
from importers.qemu.process import runs
from importers.qemu.programs import find_program
from importers.qemu.qmp import Qmp, QmpError, QmpGone
from importers.qemu.served import end, folder_of, forget, release, serve, served, take_over
from importers.qemu.staging import (
    broken,
    complete_disks,
    forecast_disks,
    held,
    incomplete,
    serve_disks,
    stage_disks,
)
from pipeline.catalogue import Point
from pipeline.errors import TargetBusy, TargetError, TargetMismatch, Unsupported, UsageError
from pipeline.finding import Finding
from pipeline.place import Build, CommandResult, DiskRestored, Endpoint, Observation, Place, Purpose, Stage, State
from pipeline.target import Abilities, Context, Intent
from pipeline.wanted import Network, Wanted


class QemuImporter:
    """Machines on this host. Threads that look at a machine take turns where QEMU serves one at a time."""

    def __init__(self, context: Context) -> None:
        self.abilities = Abilities(
            layer="overlay",
            network_at="boot",
            console=frozenset({"text", "picture"}),
            guest=frozenset({"heartbeat", "command"}),
            forward=True,
            instant=True,
            adopts=True,
        )
        self._context = context
        self._root = context.out or context.state
        self._monitor = threading.RLock()
        self._agent = threading.RLock()
        self._accelerators: dict[str, Accelerator] = {}

    # -- before ----------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        found = [*preflight.programs(BINARY), *preflight.firmware()]
        if not any(finding.severity == "error" for finding in found):
            found += preflight.accelerator(self._accelerator("auto"), parse_options({}))
        return found

    def preflight(self, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
        try:
            options = parse_options(wanted.options)
        except UsageError as error:
            return [Finding("error", "options", error.message, error.remedy)]
        found = list(preflight.programs(BINARY))
        missing = bool(found)
        found += preflight.machine(point.manifest, wanted, intent, options, self._root)
        if not missing and intent.boots:
            found += preflight.accelerator(self._accelerator(options.accelerator), options)
        if intent.instant:
            found += preflight.instant(wanted, self._context)
        return found

    def _accelerator(self, wish: Wish) -> Accelerator:
        """Tried once: a trial takes a moment."""
        if wish not in self._accelerators:
            self._accelerators[wish] = choose(find_program(BINARY), wish)
        return self._accelerators[wish]

    # -- disks -----------------------------------------------------------------------------------------------------

    def find(self, marker: uuid.UUID) -> Place | None:
        folder = find_folder(self._root, marker)
        record = folder.read() if folder else None
        return self._place(folder, record) if folder and record else None

    def _place(self, folder: Folder, record: Record) -> Place:
        stage, build = held(folder, record), self._build(folder)
        if stage is None and served(folder, record):
            stage = incomplete(folder, record)
        state: State = "prepared"
        if build is not None:
            off: State = "kept" if record.merging == "kept" else "layered"
            state = "running" if runs(folder.machine(build.purpose), folder.marker) else off
        elif stage is not None:
            state = "staged"
        elif record.disks:
            state = "staging"
        ref = {"folder": str(folder.path)}
        return Place(folder.marker, record.machine, state, stage, build, bool(record.adopted), ref)

    def _build(self, folder: Folder) -> Build | None:
        """The machine that is there, be it half made or half dropped."""
        for purpose in PURPOSES:
            machine = _readable(definition_in, folder.machine(purpose))
            if machine is not None:
                return self._as_build(folder, machine)
        return None

    def _as_build(self, folder: Folder, machine: Definition) -> Build:
        path = folder.machine(machine.purpose)
        return Build(
            folder.marker, machine.purpose, machine.name, machine.networks, started(path), {"folder": str(path)}
        )

    def prepare(self, point: Point, wanted: Wanted, marker: uuid.UUID) -> Place:
        machine = point.manifest.machine.name
        folder = folder_for(self._root, marker, machine)
        with folder.locked(create=True):
            record = folder.create(machine)
            if record.machine != machine and not record.disks:
                record = record.model_copy(update={"machine": machine})
                folder.write(record)
            return self._place(folder, record)

    def adopt(self, reference: str, marker: uuid.UUID) -> Place:
        nodes = nodes_of(reference)
        name = Path(nodes[0].file).stem
        folder = folder_for(self._root, marker, name)
        refuse_adopted(self._root, nodes, marker)
        with folder.locked(create=True):
            record = folder.create(name)
            if record.disks and not record.adopted:
                raise TargetBusy(f"{folder.path} has disks of its own already", remedy="remove the place first")
            return self._place(folder, adopt_disks(folder, record, nodes))

    def stage(self, place: Place, point: Point, wanted: Wanted, *, instant: bool = False) -> Stage:
        with self._locked(place.marker) as (folder, record):
            self._refuse(folder, "its disks cannot be made another point's")
            there = held(folder, record)
            same = there is not None and there.sequence == point.manifest.sequence and not broken(folder, record, there)
            if instant and not same:
                for finding in preflight.instant(wanted, self._context):
                    raise Unsupported(finding.message, remedy=finding.remedy)
                if record.sequence != point.manifest.sequence:
                    forget(folder, record)
                return serve_disks(self._context, folder, record, point, wanted)
            forget(folder, record)
            return stage_disks(self._context, folder, record, point, wanted)

    def _refuse(self, folder: Folder, what: str) -> None:
        """Disks with a machine on them must stay as they are."""
        build = self._build(folder)
        if build is not None:
            raise TargetBusy(
                f"{build.name} is built on the disks in {folder.path}: {what}",
                remedy="drop or remove the machine first",
            )

    def forecast(self, place: Place | None, point: Point, wanted: Wanted) -> list[DiskRestored]:
        marker = place.marker if place else uuid.uuid4()
        folder = folder_for(self._root, marker, point.manifest.machine.name)
        return forecast_disks(self._context, folder, folder.read(), point, wanted)

    def check(self, stage: Stage) -> str:
        folder = find_folder(self._root, uuid.UUID(stage.ref["marker"]))
        record = folder.read() if folder else None
        if folder is None or record is None:
            return "the disks are gone"
        return broken(folder, record, stage)

    # -- the machine -----------------------------------------------------------------------------------------------

    def build(self, place: Place, stage: Stage, wanted: Wanted, purpose: Purpose) -> Build:
        with self._locked(place.marker) as (folder, record):
            for other in PURPOSES:
                drop_rest(folder.machine(other))
            there = self._build(folder)
            if there is not None and (there.purpose, there.name) == (purpose, wanted.name):
                return there
            self._refuse(folder, f"there cannot be {wanted.name} too")
            if reason := broken(folder, record, stage):
                raise TargetMismatch(f"{folder.path}: {reason}", remedy="stage the disks again: run the import again")
            options = parse_options(wanted.options)
            machine = define(
                record, wanted, purpose, self._accelerator(options.accelerator), served=served(folder, record)
            )
            make(folder.machine(purpose), machine)
            return self._as_build(folder, machine)

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        with self._locked(build.marker) as (folder, record):
            path, machine = self._machine(build)
            if record.merging == "keeping":
                raise TargetError(
                    f"the layer of {machine.name} is only half merged into its disks",
                    remedy="let that come to its end first: keep it again",
                )
            if not runs(path, machine.marker):
                machine = take_over(folder, record, path, self._ready(machine, networks))
                describe(path, machine)
                release(folder, record, machine)
                self._context.control.tell(f"starting {machine.name} with {machine.accelerator}: {machine.why}")
            serve(self._context, folder, record, served(folder, record))
            switch_on(path, machine, self._context.control)
            return self._as_build(folder, machine)

    def _ready(self, machine: Definition, networks: Sequence[Network]) -> Definition:
        """With these networks, and what accelerates on this host today."""
        cards, findings = cards_of(networks, {disk.bus for disk in machine.disks}, machine.marker)
        for finding in findings:
            if finding.severity == "error":
                raise TargetError(f"{finding.subject}: {finding.message}", remedy=finding.remedy)
        found = self._accelerator(machine.wish)
        if machine.wish == "kvm" and found.kind != "kvm":
            raise TargetError(f"KVM does not work: {found.why}", remedy="allow `accelerator: auto` in the mapping")
        return machine.model_copy(
            update={
                "networks": tuple(networks),
                "cards": cards,
                "accelerator": found.kind,
                "why": found.why,
                "binary": find_program(BINARY),
            }
        )

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        path, machine = self._machine(build)
        with self._monitor, self._agent:
            how = switch_off(path, machine, seconds=seconds, control=self._context.control)
            seen = observe(path, machine)
        return seen if not how else Observation(seen.power, console=seen.console, reason=how)

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        with self._locked(place.marker) as (folder, record):
            there = self._build(folder)
            if there is not None and runs(folder.machine(there.purpose), folder.marker):
                raise TargetBusy(f"{there.name} runs", remedy="stop it first")
            record = self._kept(folder, record, there) if keep else self._dropped(folder, record, there)
            return held(folder, record) or incomplete(folder, record)

    def _kept(self, folder: Folder, record: Record, build: Build | None) -> Record:
        path = folder.machine(build.purpose) if build else folder.path
        machine = _readable(load, path)
        if machine is None:
            raise TargetError(f"{folder.path} has no whole machine whose layer could be kept", remedy="build it first")
        if record.merging == "kept":
            return record
        record = record.model_copy(update={"merging": "keeping"})
        folder.write(record)
        if numbers := served(folder, record):
            self._context.control.tell(f"filling the disks of {machine.name}")
            for number in numbers:
                end(folder_of(folder, number))
            complete_disks(self._context, folder, record)
            machine = take_over(folder, record, path, machine)
            describe(path, machine)
            release(folder, record, machine)
        self._context.control.tell(f"merging what {machine.name} wrote into its disks")
        machine = merged(path, machine)
        describe(path, machine)
        drop_overlays(path, machine)
        record = record.model_copy(update={"merging": "kept"})
        folder.write(record)
        return record

    def _dropped(self, folder: Folder, record: Record, build: Build | None) -> Record:
        if record.merging:
            raise TargetError(
                f"the layer of {record.machine} was merged into its disks, or half so: it cannot be dropped",
                remedy="keep it, or remove the whole place",
            )
        forget(folder, record)
        if build is not None:
            drop(folder.machine(build.purpose))
        return record

    def remove(self, marker: uuid.UUID) -> bool:
        folder = find_folder(self._root, marker)
        if folder is None:
            return False
        with folder.locked():
            for purpose in PURPOSES:
                if folder.machine(purpose).is_dir():
                    kill(folder.machine(purpose), marker, self._context.control)
            record = folder.read()
            for where in sorted((folder.path / "served").glob("disk*")):
                end(where)
            if record is not None:
                let_go(record)
            folder.delete()
        return True

    # -- looking at it ---------------------------------------------------------------------------------------------

    def observe(self, build: Build) -> Observation:
        folder = find_folder(self._root, build.marker)
        machine = _readable(load, folder.machine(build.purpose)) if folder else None
        if folder is None or machine is None:
            return Observation("off", reason="the machine is gone")
        with self._monitor, self._agent:
            return observe(folder.machine(build.purpose), machine)

    def picture(self, build: Build) -> bytes | None:
        path, _machine = self._machine(build)
        try:
            with self._monitor:
                return take_picture(path)
        except (QmpError, QmpGone):
            return None

    def reach(self, build: Build, port: int) -> Endpoint | None:
        path, machine = self._machine(build)
        try:
            with self._monitor, Qmp(path) as qmp:
                here = forward(qmp, machine, port)
        except QmpGone:
            return None
        return Endpoint(HOST, here, relayed=True) if here else None

    def accepted(self, build: Build, port: int) -> bool | None:
        path, _machine = self._machine(build)
        try:
            with self._monitor, Qmp(path) as qmp:
                return accepted(qmp, port)
        except QmpGone:
            return None

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        path, machine = self._machine(build)
        with self._monitor, Qmp(path) as qmp:
            if not agent_is_there(qmp):
                raise Unsupported(
                    f"no guest agent answers in {machine.name}",
                    remedy="install and start qemu-guest-agent in the guest, or wait until it is up",
                )
        return agent.run(
            path, arguments, stdin=stdin, seconds=seconds, turn=self._agent, check=self._context.control.check
        )

    def written(self, build: Build) -> int | None:
        """Blocks of the overlays; None once they are merged, and for disks that are still served: what is written to
        those is kept with what was filled in."""
        path, machine = self._machine(build)
        overlays = [path / disk.node.file for disk in machine.disks if disk.node != disk.base]
        if len(overlays) < len(machine.disks) or any(disk.node.format == "nbd" for disk in machine.disks):
            return None
        try:
            return sum(overlay.stat().st_blocks * 512 for overlay in overlays)
        except OSError:
            return None

    def close(self) -> None:
        """Nothing is held."""

    # -- finding ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, marker: uuid.UUID) -> Iterator[tuple[Folder, Record]]:
        """The place as it is now, kept from others."""
        folder = find_folder(self._root, marker)
        if folder is None:
            raise TargetError(f"there is no place {marker} in {self._root}", remedy="prepare it first")
        with folder.locked():
            record = folder.read()
            if record is None:
                raise TargetError(f"{folder.path} is half made", remedy="prepare it again")
            yield folder, record

    def _machine(self, build: Build) -> tuple[Path, Definition]:
        folder = find_folder(self._root, build.marker)
        machine = _readable(load, folder.machine(build.purpose)) if folder else None
        if folder is None or machine is None:
            raise TargetError(f"{build.name} is gone from {self._root}", remedy="build it again")
        return folder.machine(build.purpose), machine


def _readable(read: Callable[[Path], Definition | None], path: Path) -> Definition | None:
    """Raises TargetMismatch for a definition that is damaged."""
    try:
        return read(path)
    except ValueError as error:
        raise TargetMismatch(
            f"{path} holds a machine that cannot be read", remedy="it was edited, or made by another release; remove it"
        ) from error
