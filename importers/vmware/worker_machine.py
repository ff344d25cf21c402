"""The worker's machine, imported by the bulk path from its disk image."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyVmomi import vim

from importers.vmware import bulk
from importers.vmware.cards import Card
from importers.vmware.choice import choose
from importers.vmware.connection import Connection
from importers.vmware.controllers import Slot
from importers.vmware.datastores import Datastore, find_datastore
from importers.vmware.environment import look_around
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.find import AGENT
from importers.vmware.hardware import Choice, rounded
from importers.vmware.image_stream import ImageStream
from importers.vmware.inventory import Site, find_folder, find_pool
from importers.vmware.lease import opened
from importers.vmware.networks import backing_of, find_network
from importers.vmware.options import VmwareOptions
from importers.vmware.plan import host_of
from importers.vmware.properties import values_of
from importers.vmware.spec import NewDisk, import_spec, machine_spec
from importers.vmware.tasks import wait
from importers.vmware.upload import send
from importers.vmware.vm import PREFIX, look, put_marks
from pipeline.errors import TargetError, TargetMismatch, UsageError
from pipeline.target import Context

COMPLETE = "worker"
"""Mark of a worker whose disk is whole."""
_GUESTS = ("debian12_64Guest", "debian11_64Guest", "debian10_64Guest", "other4xLinux64Guest", "otherLinux64Guest")


def make_worker(
    connection: Connection, context: Context, options: VmwareOptions, site: Site, marker: uuid.UUID, agent: str
) -> Any:
    """The vim.VirtualMachine, whole and off. `agent` is its mark from the first moment on."""
    own, control = options.worker, context.control
    journal = context.journal(marker)
    stream = ImageStream(_image(context, own.image))
    environment = look_around(connection, site, options.version)
    datastore = find_datastore(connection, site, own.datastore or options.datastore)
    network = find_network(connection, site, own.network)
    slot = Slot(0, "pvscsi", 0, 0, 1000)
    choice = Choice(
        firmware="bios",
        secure_boot=False,
        version=environment.version,
        guest=next((guest for guest in _GUESTS if guest in environment.guests), _GUESTS[-1]),
        cpus=own.cpus,
        cores=1,
        memory=own.memory,
        slots=(slot,),
        cards=(Card("vmxnet3", "", own.network),),
        smbios=None,
    )
    name = f"failback-worker-{marker.hex[:8]}"
    spec = machine_spec(
        name,
        choice,
        options,
        marker,
        place=marker,
        machine=name,
        datastore=datastore.name,
        disks=[NewDisk(slot, rounded(stream.size), datastore.name)],
        backings=[backing_of(connection, network)],
        settings={PREFIX + AGENT: agent},
    )
    spec.annotation = (
        "failback's worker: writes other machines' disks. It holds nothing, and may be removed while no other disk is "
        "plugged into it: vSphere would delete that, too."
    )
    folder = find_folder(connection, site, own.folder)
    pool = find_pool(connection, site.compute, own.pool).object if own.pool else site.pool.object
    host = host_of(connection, site, [datastore], [own.network])
    if own.host:
        host = choose("host", own.host, site.hosts, where=f"in {site.compute.name}", key="worker.host").object
    about = "cannot import the worker"
    noted = bulk.begin_note(connection, journal)
    order = partial(pool.ImportVApp, import_spec(spec), folder.object, host)
    with opened(connection, order, control, about) as lease:
        info = lease.ready()
        noted |= {"lease": lease.id, "machine": str(info.entity._moId)}
        journal.note(bulk.NOTE, json.dumps(noted))
        [url] = lease.urls(info)
        send(stream, url, connection, options, lease.check)
        if any(got.sha1 not in ("", stream.sha1()) for got in lease.received()):
            raise TargetMismatch(
                f"the host received other bytes for {stream.name} than were sent", remedy="run the same command again"
            )
        lease.complete()
    machine = info.entity
    put_marks(connection, machine, control, {COMPLETE: "whole"})
    journal.note(bulk.NOTE, "")
    _stay(connection, context, site, machine, datastore)
    return machine


def take_away_half(connection: Connection, context: Context, machine: Any, marker: uuid.UUID) -> bool:
    """Whether the machine was a worker that never became whole, and is gone now."""
    vm = look(connection, machine)
    if vm is None or COMPLETE in vm.marks:
        return False
    bulk.take_away(connection, vm, context.journal(marker), context.control, whole=COMPLETE)
    return True


def _image(context: Context, named: str) -> Path:
    """The disk; made when there is none."""
    if named:
        return Path(named)
    from pipeline.agent.image import build_worker

    path = context.state / "worker.raw"
    if not path.exists():
        if not context.state.is_dir():
            context.state.mkdir(parents=True, mode=0o700)
        context.control.tell("making the worker's disk; packages are fetched the first time")
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        build_worker(fresh)
        fresh.replace(path)
    if not path.is_file():
        raise UsageError(f"{path} is no file", remedy="correct `worker.image`")
    return path


def _stay(connection: Connection, context: Context, site: Site, machine: Any, datastore: Datastore) -> None:
    """A cluster neither moves the worker, for disks are plugged into it, nor starts it elsewhere; a datastore cluster
    does not move its disk. Where that cannot be said it is told: the worker then works all the same."""
    orders: list[tuple[str, Callable[[], Any]]] = []
    if isinstance(site.compute.object, vim.ClusterComputeResource):
        cluster = vim.cluster
        drs = cluster.DrsVmConfigSpec(operation="add", info=cluster.DrsVmConfigInfo(key=machine, enabled=False))
        settings = cluster.DasVmSettings(restartPriority="disabled")
        das = cluster.DasVmConfigSpec(operation="add", info=cluster.DasVmConfigInfo(key=machine, dasSettings=settings))
        spec = cluster.ConfigSpecEx(drsVmConfigSpec=[drs], dasVmConfigSpec=[das])
        orders.append((site.compute.name, partial(site.compute.object.ReconfigureComputeResource_Task, spec, True)))
    pod = values_of(connection, datastore.object, "parent").get("parent")
    if isinstance(pod, vim.StoragePod):
        storage = vim.storageDrs
        vm = storage.VmConfigSpec(operation="add", info=storage.VmConfigInfo(vm=machine, enabled=False))
        manager = connection.content.storageResourceManager
        ordered = partial(manager.ConfigureStorageDrsForPod_Task, pod, storage.ConfigSpec(vmConfigSpec=[vm]), True)
        orders.append((datastore.pod, ordered))
    for name, order in orders:
        about = f"cannot keep {name} from moving the worker"
        try:
            wait(connection, connection.asked(order), context.control, about)
        except (REFUSED, *CUT) as fault:
            context.control.tell(explain(fault, about).message)
        except TargetError as error:
            context.control.tell(error.message)
