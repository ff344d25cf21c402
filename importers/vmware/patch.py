"""The incremental path: a worker writes the disks of the machine in place, and only what differs.

What is to be written is noted on the machine before the first order: the point, a word of this attempt, and what is
known of the disks. So every later run gives the agent the very same orders, which it knows again, whoever died
meanwhile. The guard holds on while the worker writes, for plugging disks into it changes nothing of the machine's own;
when it is broken the disks are read again, and what the agent knew of them does not count. Surviving disks that the
user named as seeds are noted, too, and lent to the worker for as long as it writes.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from importers.vmware import guard
from importers.vmware.attach import attach, detach, plugged
from importers.vmware.bulk import take_away
from importers.vmware.connection import Connection
from importers.vmware.find import EMPTY, MACHINE, NAME, SEEDS, SEQUENCE, SLOTS, STAGING, Found, find, marker_of_slot
from importers.vmware.hardware import rounded
from importers.vmware.inventory import Site, find_site
from importers.vmware.machines import find_machine
from importers.vmware.options import VmwareOptions
from importers.vmware.plan import plan_machine
from importers.vmware.seeds import Seed, check_free, find_seeds, fitting, lent_by, names_of, text_of
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
from pipeline.errors import Cancelled, CatalogueError, FailbackError, FormatError, TargetMismatch, TargetUnavailable
from pipeline.laps import Laps
from pipeline.place import DiskRestored, Stage
from pipeline.progress import Counters
from pipeline.target import Context
from pipeline.transfer.index_reader import IndexReader, differences
from pipeline.units import size
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
    seeds: list[Seed] = []
    if context.seeds:
        worker = find_worker(connection, context, options, site)
        ours = [vm.instance for vm in (found.vm, *found.rest) if vm is not None]
        seeds = find_seeds(connection, site, context.seeds, control, worker=worker, ours=ours)
        laps.lap("seeds")
    vm, old, done = _written(connection, context, options, site, found, point, wanted, seeds, laps)
    put_marks(
        connection,
        vm.object,
        control,
        {
            SEQUENCE: str(point.manifest.sequence),
            MACHINE: point.manifest.machine.name,
            NAME: wanted.name,
            STAGING: "",
            SEEDS: "",
        },
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
    seeds: Sequence[Seed],
    laps: Laps,
) -> tuple[Vm, Vm | None, list[DiskRestored]]:
    """(the machine whose disks hold the point, an earlier one that goes now, what was done). A worker that goes off
    meanwhile is started anew, and goes on."""
    control = context.control
    read = [seed.file for seed in seeds]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with ready_worker(connection, context, options, site) as worker:
                laps.lap("worker")
                vm, old = _machine(connection, context, options, found, point, wanted)
                files = [disk.file for disk in vm.disks]
                with worker.turn():
                    lent = lent_by((vm, found.vm))
                    if stale := lent - set(read):
                        detach(connection, worker.machine, control, stale)
                    if seeds:
                        check_free(_now(connection, worker.machine), seeds, lent)
                    held = _begun(connection, context, worker, found, vm, point, seeds)
                    laps.lap("mark")
                    attach(connection, _now(connection, worker.machine), control, files, read)
                laps.lap("attach")
                try:
                    names = names_of(connection, worker.machine, seeds)
                    done = [
                        _received(connection, context, worker, found, vm, disk, number, point, held, names, laps)
                        for number, disk in enumerate(sorted(point.manifest.disks, key=lambda disk: disk.number))
                    ]
                except FailbackError as error:
                    if seeds and not isinstance(error, Cancelled):  # cancelled: the agent goes on
                        with suppress(FailbackError), worker.turn():
                            detach(connection, worker.machine, control, read)
                    raise
                with worker.turn():
                    detach(connection, worker.machine, control, [*files, *read])
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
    """The worker has none of the machine's disks any more, and none that were lent for it."""
    if machine is not None:
        files = {file for disk in vm.disks for file in (disk.base, disk.file)}
        detach(connection, machine, context.control, files | lent_by([vm]))


def give_back(connection: Connection, context: Context, machine: Any, place: uuid.UUID, vm: Vm) -> None:
    """The worker has no disk any more that was lent for the machine to be written; its own stay where they are."""
    if machine is not None:
        detach(connection, machine, context.control, lent_by([vm]))
    journal = context.journal(place)
    token = guard.token_of(journal)
    whole = not guard.broken(connection, vm, journal, token)
    put_marks(connection, vm.object, context.control, {SEEDS: ""})
    if whole:
        guard.note(connection, _now(connection, vm.object), journal, token)


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


def _begun(
    connection: Connection,
    context: Context,
    worker: Worker,
    found: Found,
    vm: Vm,
    point: Point,
    seeds: Sequence[Seed],
) -> Attempt:
    """The attempt that is noted on the machine: an earlier one of the same point and with the same seeds, if nobody
    interfered since."""
    journal = context.journal(found.marker)
    reason = guard.broken(connection, vm, journal, guard.token_of(journal))
    earlier = vm.parsed(STAGING, Attempt.of, "")
    sequence = point.manifest.sequence
    if earlier is not None:
        same = earlier.sequence == sequence and vm.marks.get(SEEDS, "") == text_of(seeds)
        if same and not reason:
            return earlier
        for disk in point.manifest.disks:  # what was ordered then may still go on
            worker.remote.abandon(_order(found, earlier, disk))
    if reason:
        held = NOTHING
        context.control.tell(f"the disks are read again: {reason}")
    elif earlier is not None:
        held = NOTHING if earlier.held == NOTHING else AGENT_KNOWS
    else:
        held = int(vm.marks.get(SEQUENCE, 0))
    attempt = Attempt(sequence, secrets.token_hex(8), held)
    put_marks(
        connection,
        vm.object,
        context.control,
        {STAGING: attempt.text(), SEQUENCE: "", DISKS: disks_text(vm), SEEDS: text_of(seeds)},
    )
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
    seeds: Sequence[DiskName],
    laps: Laps,
) -> DiskRestored:
    file = vm.disks[number].file
    name = DiskName(serial=plugged(connection, worker.machine, file).uuid, size=vm.disks[number].size)
    params = Receive(
        disk=name,
        point=point_disk(point, disk.number),
        held=_held(context, point, disk, attempt),
        fresh=attempt.word if attempt.held == NOTHING else "",
        seeds=fitting(seeds, disk),
    )
    began = time.monotonic()
    outcome = _given(context, worker, _order(found, attempt, disk), params)
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
    if params.seeds:
        context.control.tell(f"disk {disk.number}: the seeds had {size(counters.deduplicated)} of it")
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


def _order(found: Found, attempt: Attempt, disk: Disk) -> str:
    return order_id("vmware", found.marker, attempt.sequence, attempt.word, disk.number)


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
