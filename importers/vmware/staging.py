"""Disks made equal to a recovery point by the bulk path: a machine imported whole, beside that of an earlier point."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence

from pyVmomi import vim

from importers.vmware import guard
from importers.vmware.bulk import ATTEMPTS, NOTE, import_disks, take_away
from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED
from importers.vmware.find import MACHINE, NAME, SEQUENCE, SLOTS, Found, find, marker_of_slot
from importers.vmware.folders import noted, sweep
from importers.vmware.inventory import Entity, find_folder, find_site
from importers.vmware.machines import machine_called
from importers.vmware.options import VmwareOptions
from importers.vmware.plan import Plan, plan_machine
from importers.vmware.spec import import_spec, meanwhile
from importers.vmware.tasks import PATIENCE_SECONDS
from importers.vmware.vm import DISKS, Vm, destroy, disks_text, look, options_of, put_marks, reconfigure
from pipeline.catalogue import Point
from pipeline.errors import FailbackError, LengthExceeded, TargetBusy, TargetMismatch, TargetUnavailable
from pipeline.laps import Laps
from pipeline.place import DiskRestored, Stage
from pipeline.progress import Counters
from pipeline.target import Context, Control
from pipeline.wanted import Wanted

_NOT_YET: tuple[type[Exception], ...] = (REFUSED, FailbackError, *CUT)
PAUSES = (1.0, 30.0)
"""Seconds before an import that was cut is begun again: a switch or a host that starts anew takes that long."""


def stage_bulk(
    connection: Connection, context: Context, options: VmwareOptions, found: Found, point: Point, wanted: Wanted
) -> Stage:
    """Nothing when the disks hold the point and the guard is whole."""
    journal, laps = context.journal(found.marker), Laps()
    for vm in found.rest:
        take_away(connection, vm, journal, context.control)
    reason = differs(connection, context, found, point)
    if not reason and found.stage is not None:
        return unchanged(connection, context, options, found, point, wanted)
    plan = plan_machine(connection, point.manifest, wanted, options)
    context.control.tell(f"importing {point.manifest.label} as a whole: {reason}")
    laps.lap("plan")
    made, done = _imported(connection, context, plan, found, point, wanted)
    laps.lap("upload")
    if found.vm is not None:
        destroy(connection, found.vm, context.control)
    rename(connection, context, found.marker, made, options, wanted)
    return staged(connection, context, found.marker, done, wanted, laps)


def staged(
    connection: Connection,
    context: Context,
    place: uuid.UUID,
    done: Sequence[DiskRestored],
    wanted: Wanted,
    laps: Laps,
) -> Stage:
    """The stage as it is found, and what became of each disk. What only earlier machines needed is taken away."""
    found = find(connection, place, context.journal(place))
    stage = found.stage
    if stage is None or found.vm is None:
        raise TargetMismatch(f"{wanted.name} is gone", remedy="somebody removed it: run the same command again")
    tidy(connection, context, found)
    laps.lap("mark")
    return Stage(stage.machine, stage.sequence, stage.guard, tuple(done), ref=stage.ref, steps=laps.steps)


def tidy(connection: Connection, context: Context, found: Found) -> None:
    """Folders on datastores that only machines of earlier points needed are gone."""
    journal = context.journal(found.marker)
    if not noted(journal):
        return
    used = [disk.base for vm in (found.vm, *found.rest) if vm is not None for disk in vm.disks]
    sweep(connection, journal, used, context.control)


def differs(connection: Connection, context: Context, found: Found, point: Point) -> str:
    """Why the disks have to be written; empty: they hold the point, and nobody changed the machine."""
    if found.vm is None or found.stage is None:
        return "nothing of it is there"
    if found.stage.sequence != point.manifest.sequence:
        return f"it holds @{found.stage.sequence}"
    return guard.broken(connection, found.vm, context.journal(found.marker), found.guard)


def unchanged(
    connection: Connection, context: Context, options: VmwareOptions, found: Found, point: Point, wanted: Wanted
) -> Stage:
    """The stage that is there, under the name that it shall have."""
    stage = found.stage
    assert stage is not None, "it was looked for"
    assert found.vm is not None, "it has the stage"
    rename(connection, context, found.marker, found.vm, options, wanted)
    disks = tuple(
        DiskRestored(
            disk.number,
            f"disk {disk.number}",
            "unchanged",
            "it holds this point",
            disk.digest,
            "proved when it was staged; nobody changed the machine since",
            Counters(phase="stream", disk=f"disk {disk.number}", total=disk.size),
        )
        for disk in point.manifest.disks
    )
    return Stage(stage.machine, stage.sequence, stage.guard, disks, ref=stage.ref)


def _imported(
    connection: Connection, context: Context, plan: Plan, found: Found, point: Point, wanted: Wanted
) -> tuple[Vm, list[DiskRestored]]:
    """Marked as complete, and trusted from now on, when it returns."""
    journal = context.journal(found.marker)
    taken = {found.vm.instance.lower()} if found.vm else set()
    slot = next(slot for slot in SLOTS if str(marker_of_slot(found.marker, slot)) not in taken)
    marker = marker_of_slot(found.marker, slot)
    manifest = point.manifest
    name = meanwhile(wanted.name, manifest.sequence, slot)
    check_name(connection, plan.folder, found, wanted.name)
    spec = import_spec(plan.spec(wanted.name, marker, found.marker, {}, meanwhile=name))
    plan.make_folders(connection, wanted.name, marker, journal)
    pool, folder, host = plan.site.pool.object, plan.folder.object, plan.host
    level = plan.options.compression
    for attempt in range(1, ATTEMPTS + 1):
        try:
            machine, done = import_disks(
                connection,
                context,
                plan.options,
                journal,
                point,
                plan.choice.slots,
                lambda: pool.ImportVApp(spec, folder, host),
                level=level,
            )
            break
        except (TargetUnavailable, TargetBusy, LengthExceeded) as error:
            level = 0 if isinstance(error, LengthExceeded) else level
            if isinstance(error, TargetUnavailable) and attempt < ATTEMPTS:
                _pause(connection, context.control, PAUSES[attempt - 1])
            rest = find(connection, found.marker, journal).rest
            # Busy by our own doing: what a dead command had asked for came to be only after we had looked.
            if attempt == ATTEMPTS or (isinstance(error, TargetBusy) and not rest):
                raise
            context.control.tell(f"{error.message}; again from the beginning ({attempt + 1} of {ATTEMPTS})")
        for vm in rest:
            take_away(connection, vm, journal, context.control)
    made = look(connection, machine)
    if made is None or [disk.size for disk in made.disks] != [disk.size for disk in plan.disks]:
        raise TargetMismatch(
            f"what vSphere made of {manifest.label} has other disks than were asked for",
            remedy="look at the machine in the vSphere client; `failback clean` removes it",
        )
    marks = {
        SEQUENCE: str(manifest.sequence),
        MACHINE: manifest.machine.name,
        NAME: wanted.name,
        DISKS: disks_text(made),
    }
    put_marks(connection, machine, context.control, marks)
    journal.note(NOTE, "")
    made = look(connection, machine)
    if made is None:
        raise TargetMismatch(f"{name} is gone", remedy="somebody removed it: run the same command again")
    guard.note(connection, made, journal)
    return made, done


def check_name(connection: Connection, folder: Entity, found: Found, name: str) -> None:
    """Raises TargetBusy when a machine that is none of the place's has it there."""
    other = machine_called(connection, folder, name)
    if other is not None and other not in [vm.object for vm in (found.vm, *found.rest) if vm is not None]:
        raise TargetBusy(
            f"there is another machine called {name} in the folder {folder.name}",
            remedy="give ours another `name` or `folder` in the mapping, or rename that one",
        )


def _pause(connection: Connection, control: Control, seconds: float) -> None:
    """So long, and until vSphere answers again if it does within tasks.PATIENCE_SECONDS."""
    service = vim.ServiceInstance("ServiceInstance", connection.content.propertyCollector._stub)
    start = time.monotonic()
    pause = threading.Event()
    while True:
        control.check()
        passed = time.monotonic() - start
        if passed >= seconds:
            try:
                connection.asked(service.CurrentTime)
                return
            except _NOT_YET:
                if passed > seconds + PATIENCE_SECONDS:
                    return  # what comes next says why
        pause.wait(0.5)


def rename(
    connection: Connection, context: Context, place: uuid.UUID, vm: Vm, options: VmwareOptions, wanted: Wanted
) -> None:
    """Raises TargetBusy when somebody else has that name there."""
    name = wanted.name
    if vm.name == name:
        return
    folder = find_folder(connection, find_site(connection, options), wanted.folder)
    check_name(connection, folder, find(connection, place, context.journal(place)), name)
    journal = context.journal(place)
    token = guard.token_of(journal)
    spec = vim.vm.ConfigSpec(name=name, extraConfig=options_of({NAME: name}))
    reconfigure(connection, vm.object, context.control, spec, f"cannot name {vm.name} {name}", lambda v: v.name == name)
    now = look(connection, vm.object)
    if now is not None and guard.same_disks(now, journal):
        guard.note(connection, now, journal, token)


def forecast_bulk(connection: Connection, context: Context, found: Found | None, point: Point) -> list[DiskRestored]:
    """What `stage_bulk` would send."""
    reason = differs(connection, context, found, point) if found else "nothing of it is there"
    forecast = []
    for disk in point.manifest.disks:
        counters = Counters(phase="stream", disk=f"disk {disk.number}", total=disk.size)
        mode = "full" if reason else "unchanged"
        length = disk.live_bytes if reason else 0
        forecast.append(
            DiskRestored(
                disk.number, f"disk {disk.number}", mode, reason, disk.digest, "dry run", counters, to_move=length
            )
        )
    return forecast
