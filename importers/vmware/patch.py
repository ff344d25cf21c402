"""The incremental path: a worker writes the disks of the machine in place, and only what differs.

What is to be written is noted on the machine before the first order: the point, a word of this attempt, and what is
known of the disks. So every later run gives the agent the very same orders, which it knows again, whoever died
meanwhile. The guard holds on while the worker writes, for plugging disks into it changes nothing of the machine's own;
when it is broken the disks are read again, and what the agent knew of them does not count.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from importers.vmware import guard
from importers.vmware.attach import attach, detach, uuid_of
from importers.vmware.bulk import take_away
from importers.vmware.connection import Connection
from importers.vmware.find import EMPTY, MACHINE, NAME, SEQUENCE, SLOTS, STAGING, Found, find, marker_of_slot
from importers.vmware.hardware import rounded
from importers.vmware.inventory import Site, find_site
from importers.vmware.machines import find_machine
from importers.vmware.options import VmwareOptions
from importers.vmware.plan import plan_machine
from importers.vmware.spec import meanwhile
from importers.vmware.staging import differs, rename, staged, unchanged
from importers.vmware.tasks import wait
from importers.vmware.vm import DISKS, Vm, destroy, disks_text, look, put_marks
from importers.vmware.worker import Worker, WorkerOff, find_worker, ready_worker
from manifests.entry import PackTable
from manifests.manifest import Disk
from pipeline.agent.orders import DiskName, Receive
from pipeline.agent.remote import Outcome, order_id, point_disk, vouched
from pipeline.catalogue import Point, load
from pipeline.errors import CatalogueError, FormatError, TargetMismatch, TargetUnavailable
from pipeline.laps import Laps
from pipeline.place import DiskRestored, Stage
from pipeline.progress import Counters
from pipeline.target import Context
from pipeline.transfer.index_reader import IndexReader, differences
from pipeline.wanted import Wanted

SEEN_SECONDS = 60.0
"""For a disk that was plugged in to be seen by the worker's system."""
LOOK_SECONDS = 0.5
ATTEMPTS = 3
"""With a worker that goes off while it is needed."""


AGENT_KNOWS, NOTHING = -1, -2


@dataclass(frozen=True, slots=True)
class Attempt:
    """The value of the mark STAGING. `held`: sequence of the point that the disks surely hold, 0: zeros; AGENT_KNOWS:
    what the agent itself knows counts; NOTHING: not even that."""

    sequence: int
    word: str
    held: int

    def text(self) -> str:
        return json.dumps([self.sequence, self.word, self.held])

    @classmethod
    def of(cls, text: str) -> Attempt | None:
        if not text or text == EMPTY:
            return None
        sequence, word, held = json.loads(text)
        return cls(int(sequence), str(word), int(held))


def stage_by_worker(
    connection: Connection, context: Context, options: VmwareOptions, found: Found, point: Point, wanted: Wanted
) -> Stage:
    """Nothing when the disks hold the point and the guard is whole."""
    journal, control, laps = context.journal(found.marker), context.control, Laps()
    site = find_site(connection, options)
    _clear(connection, context, options, site, found)
    reason = differs(connection, context, found, point)
    if not reason and found.stage is not None:
        return unchanged(connection, context, options, found, point, wanted)
    vm, old, done = _written(connection, context, options, site, found, point, wanted, laps)
    put_marks(
        connection,
        vm.object,
        control,
        {SEQUENCE: str(point.manifest.sequence), MACHINE: point.manifest.machine.name, NAME: wanted.name, STAGING: ""},
    )
    now = _now(connection, vm.object)
    guard.note(connection, now, journal)
    if old is not None:
        destroy(connection, old, control)
    rename(connection, context, found.marker, now, options, wanted)
    return staged(connection, context, found.marker, done, wanted, laps)


def _written(
    connection: Connection,
    context: Context,
    options: VmwareOptions,
    site: Site,
    found: Found,
    point: Point,
    wanted: Wanted,
    laps: Laps,
) -> tuple[Vm, Vm | None, list[DiskRestored]]:
    """(the machine whose disks hold the point, an earlier one that goes now, what was done). A worker that goes off
    meanwhile is started anew, and goes on."""
    control = context.control
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with ready_worker(connection, context, options, site) as worker:
                laps.lap("worker")
                vm, old = _machine(connection, context, options, found, point, wanted)
                held = _begun(connection, context, found, vm, point)
                files = [disk.file for disk in vm.disks]
                laps.lap("mark")
                with worker.turn():
                    attach(connection, _now(connection, worker.machine), control, files)
                laps.lap("attach")
                done = [
                    _received(connection, context, worker, found, vm, disk, number, point, held, laps)
                    for number, disk in enumerate(sorted(point.manifest.disks, key=lambda disk: disk.number))
                ]
                with worker.turn():
                    detach(connection, worker.machine, control, files)
                laps.lap("detach")
            return vm, old, done
        except WorkerOff as error:
            if attempt == ATTEMPTS:
                raise
            control.tell(f"{error.message}: it is started again ({attempt + 1} of {ATTEMPTS})")
        found = find(connection, found.marker, context.journal(found.marker))
        _clear(connection, context, options, site, found)
    raise AssertionError("the last attempt returned or raised")


def forecast_worker(connection: Connection, context: Context, found: Found | None, point: Point) -> list[DiskRestored]:
    """What `stage_by_worker` would fetch."""
    reason = differs(connection, context, found, point) if found else "nothing of it is there"
    earlier = _earlier(connection, context, found, point) if found and reason else None
    forecast = []
    for disk in point.manifest.disks:
        counters = Counters(phase="restore", disk=f"disk {disk.number}", total=disk.size)
        before = earlier.get(disk.number) if earlier else None
        mode, to_move = ("unchanged", 0) if not reason else ("full", disk.live_bytes)
        if before is not None and before.chunk_size == disk.chunk_size:
            packs = PackTable()
            old, new = (IndexReader(context.repository, one, packs) for one in (before, disk))
            changed = differences(old, new)
            mode, to_move = "refresh", sum(int(rows["length"].sum()) for _positions, rows in changed)
        forecast.append(
            DiskRestored(
                disk.number, f"disk {disk.number}", mode, reason, disk.digest, "dry run", counters, to_move=to_move
            )
        )
    return forecast


def _earlier(connection: Connection, context: Context, found: Found, point: Point) -> dict[int, Disk] | None:
    """The disks of the point that is staged, if it is trusted."""
    journal = context.journal(found.marker)
    if found.vm is None or found.stage is None or guard.broken(connection, found.vm, journal, found.guard):
        return None
    try:
        earlier = load(context.repository, point.manifest.machine.name, found.stage.sequence)
    except (CatalogueError, FormatError):
        return None
    return {disk.number: disk for disk in earlier.manifest.disks} if earlier is not None else None


def prepare_machine(
    connection: Connection, context: Context, options: VmwareOptions, found: Found, point: Point, wanted: Wanted
) -> None:
    """A machine with empty disks, when there is none."""
    if found.vm is None:
        _clear(connection, context, options, find_site(connection, options), found)
        _create(connection, context, options, found, point, wanted, SLOTS[0])


def _clear(connection: Connection, context: Context, options: VmwareOptions, site: Site, found: Found) -> None:
    """Machines that do not count are gone, and the worker has none of their disks."""
    if not found.rest:
        return
    worker = find_worker(connection, context, options, site)
    for vm in found.rest:
        release(connection, context, worker, vm)
        take_away(connection, vm, context.journal(found.marker), context.control)


def release(connection: Connection, context: Context, machine: Any, vm: Vm) -> None:
    """The worker has none of the machine's disks any more."""
    if machine is not None:
        detach(
            connection, machine, context.control, [disk.base for disk in vm.disks] + [disk.file for disk in vm.disks]
        )


def _machine(
    connection: Connection, context: Context, options: VmwareOptions, found: Found, point: Point, wanted: Wanted
) -> tuple[Vm, Vm | None]:
    """(the machine to be written, an earlier one that goes when this one is whole: its disks are of other sizes)."""
    sizes = [rounded(disk.size) for disk in sorted(point.manifest.disks, key=lambda disk: disk.number)]
    if found.vm is None:
        return _create(connection, context, options, found, point, wanted, SLOTS[0]), None
    if [disk.size for disk in found.vm.disks] == sizes:
        return found.vm, None
    slot = next(slot for slot in SLOTS if str(marker_of_slot(found.marker, slot)) != found.vm.instance.lower())
    return _create(connection, context, options, found, point, wanted, slot), found.vm


def _create(
    connection: Connection,
    context: Context,
    options: VmwareOptions,
    found: Found,
    point: Point,
    wanted: Wanted,
    slot: int,
) -> Vm:
    """With empty disks. A lost answer makes no second one: it is looked for."""
    plan = plan_machine(connection, point.manifest, wanted, options)
    marker = marker_of_slot(found.marker, slot)
    name = wanted.name if found.vm is None else meanwhile(wanted.name, point.manifest.sequence, slot)
    plan.make_folders(connection, wanted.name, marker, context.journal(found.marker))
    spec = plan.spec(wanted.name, marker, found.marker, {f"failback.{STAGING}": EMPTY}, meanwhile=name)
    about = f"cannot create the machine {name}"
    try:
        task = connection.order(lambda: plan.folder.object.CreateVM_Task(spec, plan.site.pool.object, plan.host), about)
        machine = wait(connection, task, context.control, about)
    except TargetUnavailable:
        machine = find_machine(connection, marker)
        if machine is None:
            raise
    vm = _now(connection, machine)
    guard.note(connection, vm, context.journal(found.marker))
    return vm


def _begun(connection: Connection, context: Context, found: Found, vm: Vm, point: Point) -> Attempt:
    """The attempt that is noted on the machine: an earlier one of the same point, if nobody interfered since."""
    journal = context.journal(found.marker)
    reason = guard.broken(connection, vm, journal, guard.token_of(journal))
    earlier = Attempt.of(vm.marks.get(STAGING, ""))
    sequence = point.manifest.sequence
    if not reason and earlier is not None and earlier.sequence == sequence:
        return earlier
    if reason:
        held = NOTHING
        context.control.tell(f"the disks are read again: {reason}")
    elif earlier is not None:
        held = NOTHING if earlier.held == NOTHING else AGENT_KNOWS
    else:
        held = int(vm.marks.get(SEQUENCE, 0))
    attempt = Attempt(sequence, secrets.token_hex(8), held)
    put_marks(connection, vm.object, context.control, {STAGING: attempt.text(), SEQUENCE: "", DISKS: disks_text(vm)})
    guard.note(connection, _now(connection, vm.object), journal)
    return attempt


def _received(
    connection: Connection,
    context: Context,
    worker: Worker,
    found: Found,
    vm: Vm,
    disk: Disk,
    number: int,
    point: Point,
    attempt: Attempt,
    laps: Laps,
) -> DiskRestored:
    file = vm.disks[number].file
    name = DiskName(serial=uuid_of(connection, worker.machine, file), size=vm.disks[number].size)
    params = Receive(
        disk=name,
        point=point_disk(point, disk.number),
        held=_held(context, point, disk, attempt),
        fresh=attempt.word if attempt.held == NOTHING else "",
    )
    began = time.monotonic()
    order = order_id("vmware", found.marker, attempt.sequence, attempt.word, disk.number)
    outcome = _given(context, worker, order, params)
    laps.lap("order", outcome.steps)
    report = outcome.report
    result = report.result
    counters = Counters(
        phase="restore",
        disk=f"disk {disk.number}",
        total=disk.size,
        done=disk.size,
        read=int(result.get("fetched", 0)),
        written=int(result.get("written", 0)),
        deduplicated=int(result.get("seeded", 0)),
    )
    return DiskRestored(
        disk.number,
        f"disk {disk.number}",
        str(result.get("mode", "full")),
        str(result.get("reason", "")),
        disk.digest,
        str(result.get("proof", "")),
        counters,
        seconds=round(time.monotonic() - began, 3),
    )


def _given(context: Context, worker: Worker, order: str, params: Receive) -> Outcome:
    """The order, given again while the worker's system has not seen the disk yet."""
    deadline = time.monotonic() + SEEN_SECONDS
    pause = threading.Event()
    while True:
        try:
            return worker.remote.receive(order, params)
        except TargetMismatch as error:
            if "is not attached here" not in error.message or time.monotonic() > deadline:
                raise
        context.control.check()
        pause.wait(LOOK_SECONDS)


def _held(context: Context, point: Point, disk: Disk, attempt: Attempt) -> Any:
    """What we vouch for; None: the agent goes by what it knows."""
    if attempt.held == 0:
        return vouched(None)
    if attempt.held < 0:
        return None
    try:
        earlier = load(context.repository, point.manifest.machine.name, attempt.held)
        return vouched(point_disk(earlier, disk.number)) if earlier is not None else None
    except (CatalogueError, FormatError):
        return None


def _now(connection: Connection, machine: Any) -> Vm:
    vm = look(connection, machine)
    if vm is None:
        raise TargetMismatch("the machine is gone", remedy="somebody removed it: run the same command again")
    return vm
