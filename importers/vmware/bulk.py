"""The bulk path: vSphere makes the machine, and takes its disks as streams, under a lease.

Nothing of ours is installed in the site, and a disk always goes whole. A crash leaves a machine that is not marked as
complete; its lease, session and id were noted before the first byte, so the next run ends the dead session, which ends
the lease, and begins again. A machine counts only with our mark, set after the lease was completed and what the host
says that it received was compared with what we sent.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from importers.vmware.connection import Connection
from importers.vmware.controllers import Slot
from importers.vmware.find import SEQUENCE, STAGING
from importers.vmware.hardware import rounded
from importers.vmware.lease import DeviceUrl, Lease, Received, opened
from importers.vmware.options import VmwareOptions
from importers.vmware.properties import values_of
from importers.vmware.tasks import cancel_task
from importers.vmware.upload import send
from importers.vmware.vm import Vm, destroy, look
from pipeline.arenas import few_arenas
from pipeline.catalogue import Point
from pipeline.errors import TargetBusy, TargetError, TargetMismatch, TargetUnavailable
from pipeline.place import DiskRestored
from pipeline.progress import Counters
from pipeline.target import Context, Control, Journal
from pipeline.transfer.disk_stream import DiskStream, StreamOptions

NOTE = "lease"
ATTEMPTS = 3
"""Of a whole import, when the line or the lease was lost."""
SIDE_BY_SIDE = 3
"""Disks at a time. Host and vCenter allow some tens of connections, and each disk is one (VDDK Programming Guide, NFC
session limits); more than a few do not go faster."""
AHEAD, LEAST = 72 << 20, 24 << 20
"""Bytes that all streams, and each at least, hold ahead of what is sent. With all that goes beside them a process stays
below 256 MiB (`scripts.bench stream`)."""
LEASE_SECONDS = 330.0
"""vSphere's own limit for a lease nobody renews is 300 s."""
STEP_SECONDS = 1.0
_UNIT = re.compile(r"/Virtual(\w*?)Controller(\d+):(\d+)$")


def import_disks(
    connection: Connection,
    context: Context,
    options: VmwareOptions,
    journal: Journal,
    point: Point,
    slots: Sequence[Slot],
    order: Callable[[], Any],
    *,
    level: int = 0,
) -> tuple[Any, list[DiskRestored]]:
    """The machine (vim.VirtualMachine), whole but not yet marked so, and what was sent. `order` asks for the lease. The
    note that it is our own import stays until the caller has marked it.

    Raises TargetUnavailable when line or lease is lost, and whatever the host refuses; what was made is gone then.
    """
    about = f"cannot import {point.manifest.label}"
    noted = begin_note(connection, journal)
    with opened(connection, order, context.control, about) as lease:
        noted["lease"] = lease.id
        journal.note(NOTE, json.dumps(noted))
        info = lease.ready()
        noted["machine"] = str(info.entity._moId)
        journal.note(NOTE, json.dumps(noted))
        targets = _matched(lease.urls(info), slots, about)
        done = _sent(connection, context, options, lease, point, targets, level)
        lease.complete()
    return info.entity, done


def begin_note(connection: Connection, journal: Journal) -> dict[str, str]:
    """What is noted before a lease is asked for. The session of an earlier command ends first, and its leases with it:
    nothing would tell of them any more."""
    _end_dead(connection, json.loads(journal.get(NOTE) or "{}"))
    noted = {"session": connection.session, **({"borrowed": "yes"} if connection.borrowed else {})}
    journal.note(NOTE, json.dumps(noted))
    return noted


def _end_dead(connection: Connection, noted: Mapping[str, str]) -> None:
    if noted and noted["session"] != connection.session and "borrowed" not in noted:
        connection.end_session(noted["session"])


def _sent(
    connection: Connection,
    context: Context,
    options: VmwareOptions,
    lease: Lease,
    point: Point,
    targets: dict[int, DeviceUrl],
    level: int,
) -> list[DiskRestored]:
    few_arenas()
    disks = point.manifest.disks
    watching = _Watching(context.control, lease, sum(disk.size for disk in disks))
    memory = max(LEAST, min(AHEAD, context.memory // 4) // max(1, min(len(disks), SIDE_BY_SIDE)))
    streams = {
        disk.number: DiskStream(
            context.repository,
            point,
            disk,
            StreamOptions(
                level=level,
                announce=True,
                parallel=context.parallel,
                memory=memory,
                capacity=rounded(disk.size),
            ),
            watch=watching,
        )
        for disk in disks
    }
    seconds: dict[int, float] = {}

    def one(number: int) -> None:
        began = time.monotonic()
        send(streams[number], targets[number], connection, options, watching.check)
        seconds[number] = time.monotonic() - began

    with ThreadPoolExecutor(SIDE_BY_SIDE, "upload") as pool:
        jobs = [pool.submit(one, number) for number in targets]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            watching.end()
        errors = [error for job in jobs if (error := job.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, _Other)):
            raise lease.told(error) if isinstance(error, TargetError) else error
    confirmed = _confirmed(lease.received(), streams, targets, {disk.number: rounded(disk.size) for disk in disks})
    return [
        DiskRestored(
            disk.number,
            f"disk {disk.number}",
            "full",
            "the bulk path sends whole disks",
            disk.digest,
            "the host confirmed size and SHA-1 of the stream"
            if disk.number in confirmed
            else "the host took the stream",
            streams[disk.number].counters,
            seconds=seconds[disk.number],
        )
        for disk in disks
    ]


def _confirmed(
    received: Sequence[Received], streams: dict[int, DiskStream], targets: dict[int, DeviceUrl], sizes: dict[int, int]
) -> set[int]:
    """Numbers of the disks that the host vouches for. Raises TargetMismatch for one that it got otherwise."""
    by_key = {entry.key: entry for entry in received}
    found = set()
    for number, target in targets.items():
        entry = by_key.get(target.key)
        if entry is None:
            continue
        stream = streams[number]
        wrong = (
            (entry.sha1 and entry.sha1 != stream.digest("sha1"))
            or (entry.size and entry.size != stream.counters.sent)
            or (entry.capacity and entry.capacity != sizes[number])
        )
        if wrong:
            raise TargetMismatch(
                f"the host received other bytes for {stream.name} than were sent",
                remedy="run the same command again; if it happens again, something on the way changes what passes",
            )
        if entry.sha1:
            found.add(number)
    return found


class _Other(TargetUnavailable):
    """Given up because of another disk, whose error is the one to be told."""


class _Watching:
    """Progress of disks that go side by side, told one at a time; and the end of one is the end of all."""

    def __init__(self, control: Control, lease: Lease, total: int) -> None:
        self._control, self._lease, self._total = control, lease, max(1, total)
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._ended = threading.Event()

    def __call__(self, counters: Counters) -> None:
        with self._lock:
            self._done[counters.disk] = counters.done
            self._lease.progress(sum(self._done.values()) * 100 // self._total)
            self._control.watch(counters)

    def check(self) -> None:
        if self._ended.is_set():
            raise _Other("another disk of the machine could not be sent")
        self._lease.check()

    def end(self) -> None:
        self._ended.set()


def _matched(urls: Sequence[DeviceUrl], slots: Sequence[Slot], about: str) -> dict[int, DeviceUrl]:
    """By controller and unit where the keys tell them, else by order, which both sides have from the spec."""
    places = [_place(url) for url in urls]
    wanted = {(slot.controller, slot.unit): slot.number for slot in slots}
    if len(wanted) == len(slots) == len(urls) and set(places) == set(wanted):
        return {wanted[place]: url for place, url in zip(places, urls, strict=True) if place is not None}
    if len(urls) != len(slots):
        raise TargetError(
            f"{about}: vSphere gives {len(urls)} addresses for {len(slots)} disks",
            remedy="look at the machine's disks in the mapping; a worker writes them without this",
        )
    return {slot.number: url for slot, url in zip(slots, urls, strict=True)}


def _place(url: DeviceUrl) -> tuple[int, int] | None:
    found = _UNIT.search(url.import_key) or _UNIT.search(url.key)
    return (int(found[2]), int(found[3])) if found else None


def take_away(connection: Connection, vm: Vm, journal: Journal, control: Control, *, whole: str = SEQUENCE) -> None:
    """A machine that an import left half made, or that a later one has replaced. Waits for its lease to end where that
    cannot be ended.

    Whose import it was the journal tells. One that another host of ours began may be alive: it is left alone until its
    lease would be over; raises TargetBusy when it becomes whole meanwhile. `whole`: the mark that says so.
    """
    if SEQUENCE in vm.marks or STAGING in vm.marks:
        destroy(connection, vm, control)  # no lease holds it
        return
    noted = json.loads(journal.get(NOTE) or "{}")
    _end_dead(connection, noted)
    lost = noted.get("session") == connection.session and "lease" not in noted
    if noted.get("machine") == vm.id or lost:  # ours, or what we asked for when the answer was lost
        _cancel(connection, vm)
        _until_gone(connection, vm, control)
    else:
        _outlived(connection, vm, control, whole)
    journal.note(NOTE, "")


def _cancel(connection: Connection, vm: Vm) -> None:
    try:
        tasks = values_of(connection, vm.object, "recentTask").get("recentTask") or ()
    except TargetMismatch:
        return  # it went with its session
    for task in tasks:
        cancel_task(connection, task)


def _until_gone(connection: Connection, vm: Vm, control: Control) -> None:
    deadline = time.monotonic() + LEASE_SECONDS
    pause = threading.Event()
    told = False
    while (now := look(connection, vm.object)) is not None:
        control.check()
        try:
            destroy(connection, now, control)
        except TargetBusy:
            if time.monotonic() > deadline:
                raise
            if not told:
                control.tell(f"waiting for vSphere to end the dead import of {vm.name}")
                told = True
            pause.wait(STEP_SECONDS)


def _outlived(connection: Connection, vm: Vm, control: Control, whole: str) -> None:
    """Gone, in the end: by its lease's own end, or because nobody completed it for longer than that."""
    deadline = time.monotonic() + LEASE_SECONDS
    pause = threading.Event()
    told = False
    while (now := look(connection, vm.object)) is not None:
        control.check()
        if whole in now.marks:
            raise TargetBusy(
                f"another command, of another host, has just imported {now.name}",
                remedy="run the same command again: it goes on from there",
            )
        if time.monotonic() > deadline:
            _cancel(connection, now)
            _until_gone(connection, now, control)
            return
        if not told:
            control.tell(
                f"another host seems to import {vm.name}: waiting for that to end, {LEASE_SECONDS:.0f} s at most"
            )
            told = True
        pause.wait(STEP_SECONDS)
