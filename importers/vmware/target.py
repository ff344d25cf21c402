"""The importer `vmware`: `failback import MACHINE --to vmware`.

A place is a machine whose instance UUID is a marker of the place's; the marks on it (`importers.vmware.find`) say which
recovery point its disks hold. There are two such UUIDs: while a later point is imported as a whole, the machine of the
earlier one stays, and goes when the new one is complete.

What a host of ours notes (the guard, a lease) speeds the next command up or cleans up sooner; the platform alone
decides what is there.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence

from pyVmomi import vim

from importers.vmware import guard, layer, observe, power, preflight, rewire, written
from importers.vmware.attributes import set_attributes
from importers.vmware.build import build_spec
from importers.vmware.bulk import take_away
from importers.vmware.connection import Connection
from importers.vmware.find import BOOTED, BUILT, KEPT, MACHINE, NAME, Found, find
from importers.vmware.inventory import find_folder, find_site, path_of, site_of
from importers.vmware.machines import machine_called
from importers.vmware.networks import all_networks
from importers.vmware.options import VmwareOptions, connection_differs, parse_options
from importers.vmware.patch import forecast_worker, give_back, prepare_machine, release, stage_by_worker
from importers.vmware.seeds import check_possible, lent_by, seed_findings
from importers.vmware.staging import forecast_bulk, stage_bulk, tidy
from importers.vmware.trial import Trial
from importers.vmware.vm import Vm, check_own, destroy, look, put_marks, reconfigure
from importers.vmware.worker import find_worker
from pipeline.catalogue import Point
from pipeline.errors import TargetBusy, TargetError, TargetMismatch, Unsupported, UsageError
from pipeline.finding import Finding
from pipeline.place import Build, CommandResult, DiskRestored, Endpoint, Observation, Place, Purpose, Stage
from pipeline.target import Abilities, Context, Intent, Tried
from pipeline.wanted import Network, Wanted


class VmwareImporter:
    """Machines of a vCenter or a single ESXi host."""

    def __init__(self, context: Context) -> None:
        worker = _has_worker(context.options)
        self.abilities = Abilities(
            writer="agent" if worker else "controller",
            patch="in place" if worker else "none",
            proof="blocks" if worker else "stream",
            layer="snapshot",
            console=frozenset({"text", "picture"}),
            guest=frozenset({"heartbeat"}),
            max_disk=62 << 40,
            size_step=1024,
        )
        self._context = context
        self._lock = threading.Lock()
        self._opened: Connection | None = None
        self._places: dict[str, tuple[str, str]] = {}
        """Machine id -> (datacenter, serial log), for those who look at it every second."""

    @property
    def _connection(self) -> Connection:
        with self._lock:
            if self._opened is None:
                self._opened = Connection(parse_options(self._context.options))
            return self._opened

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    # -- before ----------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        return preflight.platform(self._connection, parse_options(self._context.options))

    def trial(self, run: uuid.UUID) -> Iterator[Tried]:
        options = parse_options(self._context.options)
        trial = Trial(self._connection, options, self._context.control, run)
        trial.clean()
        return trial.points()

    def preflight(self, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
        try:
            options = _options(wanted)
        except UsageError as error:
            return [Finding("error", "options", error.message, error.remedy)]
        if changed := connection_differs(self._context.options, wanted.options):
            message = f"{changed[0]} cannot be another one for one machine"
            return [Finding("error", "options", message, "say it once, in the mapping's `options` for all machines")]
        ours = self._earlier(point, wanted, options)
        found = preflight.machine(self._connection, options, point.manifest, wanted, intent, ours)
        return [*found, *self._seeds(options, ours)]

    def _seeds(self, options: VmwareOptions, ours: uuid.UUID | None) -> Iterator[Finding]:
        connection, context = self._connection, self._context
        if not context.seeds:
            return
        try:
            site = find_site(connection, options)
        except TargetError:
            return  # said already
        yield from seed_findings(
            connection,
            site,
            options,
            context.seeds,
            context.control,
            worker=lambda: find_worker(connection, context, options, site),
            ours=[str(ours)] if ours else [],
        )

    def _earlier(self, point: Point, wanted: Wanted, options: VmwareOptions) -> uuid.UUID | None:
        """Instance UUID of a machine of ours that has the name already; what its name and adapters take is no
        conflict."""
        try:
            folder = find_folder(self._connection, find_site(self._connection, options), wanted.folder)
            there = machine_called(self._connection, folder, wanted.name)
        except TargetError:
            return None
        vm = look(self._connection, there) if isinstance(there, vim.VirtualMachine) else None
        if vm is None or vm.marks.get(MACHINE) != point.manifest.machine.name or not vm.instance:
            return None
        return uuid.UUID(vm.instance)

    def find(self, marker: uuid.UUID) -> Place | None:
        return self._find(marker).place()

    def _find(self, marker: uuid.UUID) -> Found:
        return find(self._connection, marker, self._context.journal(marker))

    def prepare(self, point: Point, wanted: Wanted, marker: uuid.UUID) -> Place:
        """For a worker a machine with empty disks. Else nothing: it is made with its disks."""
        options = _options(wanted)
        if options.worker.wanted:
            prepare_machine(self._connection, self._context, options, self._find(marker), point, wanted)
        return self.find(marker) or Place(marker, point.manifest.machine.name, "prepared")

    # -- disks -----------------------------------------------------------------------------------------------------

    def stage(self, place: Place, point: Point, wanted: Wanted, *, instant: bool = False) -> Stage:
        if instant:
            raise Unsupported("vSphere cannot run a machine from the repository", remedy="leave --instant away")
        found = self._find(place.marker)
        if found.build is not None:
            raise TargetBusy(
                f"{found.build.name} is built on the disks: they cannot be made another point's",
                remedy="drop or remove the machine first",
            )
        if found.vm is not None and (others := layer.foreign(found.vm, place.marker)):
            raise TargetBusy(
                f"{found.vm.name} has a snapshot that is not ours: {others[0]!r}",
                remedy="remove it in the vSphere client, or wait until the backup job that took it has done so",
            )
        if found.vm is not None:
            check_own(found.vm)
        options = _options(wanted)
        check_possible(options, self._context.seeds)
        if options.worker.wanted:
            return stage_by_worker(self._connection, self._context, options, found, point, wanted)
        return stage_bulk(self._connection, self._context, options, found, point, wanted)

    def forecast(self, place: Place | None, point: Point, wanted: Wanted) -> list[DiskRestored]:
        found = self._find(place.marker) if place else None
        if _options(wanted).worker.wanted:
            return forecast_worker(self._connection, self._context, found, point)
        return forecast_bulk(self._connection, self._context, found, point)

    def check(self, stage: Stage) -> str:
        vm = look(self._connection, self._connection.managed(vim.VirtualMachine, stage.ref["machine"]))
        if vm is None:
            return "the machine with the disks is gone"
        if KEPT in vm.marks:
            return "what the machine wrote was merged into the disks"
        marker = uuid.UUID(stage.ref["marker"])
        journal = self._context.journal(marker)
        if layer.layer_of(vm, marker) is not None:
            return self._below(vm, marker, stage)
        if BOOTED in vm.marks:
            return "somebody removed the snapshot: what the machine wrote was merged into the disks"
        return guard.broken(self._connection, vm, journal, stage.guard)

    def _below(self, vm: Vm, marker: uuid.UUID, stage: Stage) -> str:
        """`check` while a machine of ours is built on the disks: what changes it lands in its own layer."""
        journal = self._context.journal(marker)
        if others := layer.foreign(vm, marker):
            return f"there is a snapshot of {vm.name} that is not ours: {others[0]!r}"
        if not guard.same_disks(vm, journal) or guard.token_of(journal) != stage.guard:
            return f"the disks below {vm.name} are not those that were staged"
        return ""

    # -- the machine -----------------------------------------------------------------------------------------------

    def build(self, place: Place, stage: Stage, wanted: Wanted, purpose: Purpose) -> Build:
        connection, control = self._connection, self._context.control
        found = self._find(place.marker)
        vm = self._staged(found)
        if found.build is not None:
            if (found.build.purpose, found.build.name) != (purpose, wanted.name):
                raise TargetBusy(
                    f"{found.build.name} is built on the disks: there cannot be {wanted.name} too",
                    remedy="drop or remove the machine first",
                )
            if BUILT in vm.marks or found.kept:
                return found.build
        elif reason := guard.broken(connection, vm, self._context.journal(place.marker), stage.guard):
            raise TargetMismatch(f"{vm.name}: {reason}", remedy="stage the disks again: run the import again")
        options = _options(wanted)
        site = find_site(connection, options)
        if options.worker.wanted:
            release(connection, self._context, find_worker(connection, self._context, options, site), vm)
        if found.layer is None:
            layer.make(connection, vm, control, place.marker, purpose, wanted.name, wanted.networks)
        spec = build_spec(connection, site, options, self._now(vm), wanted, purpose, control)
        reconfigure(connection, vm.object, control, spec, f"cannot build {wanted.name}")
        self._places.pop(vm.id, None)
        set_attributes(connection, vm.object, options.attributes)
        build = self._find(place.marker).build
        assert build is not None, "its layer was just made"
        return build

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        found = self._find(build.marker)
        vm = self._staged(found)
        if found.kept and found.layer is not None:
            raise TargetError(
                f"the layer of {build.name} is only half merged into its disks",
                remedy="let that come to its end first: keep it again",
            )
        if not vm.runs and BOOTED not in vm.marks and not found.kept:
            put_marks(self._connection, vm.object, self._context.control, {BOOTED: "yes"})
        power.switch_on(self._connection, vm.object, build.name, self._context.control)
        return self._find(build.marker).build or build

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        vm = self._staged(self._find(build.marker))
        how = power.switch_off(self._connection, vm.object, build.name, self._context.control, seconds=seconds)
        seen = self.observe(build)
        return seen if not how else Observation(seen.power, console=seen.console, reason=how)

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        connection, control, journal = self._connection, self._context.control, self._context.journal(place.marker)
        found = self._find(place.marker)
        vm = self._staged(found)
        if vm.runs:
            raise TargetBusy(f"{build.name} runs", remedy="stop it first")
        if not keep and found.kept:
            raise TargetError(
                f"the layer of {build.name} was merged into its disks, or half so: it cannot be dropped",
                remedy="keep it, or remove the whole place",
            )
        if keep and found.layer is not None:
            if BUILT not in vm.marks:
                raise TargetError(f"{build.name} is only half built: nothing can be kept", remedy="build it first")
            put_marks(connection, vm.object, control, {KEPT: "yes"})
            control.tell(f"merging what {build.name} wrote into its disks")
            layer.remove(connection, self._now(vm), control, found.layer)
            guard.drop(journal)
        elif not keep and found.layer is not None:
            trusted = guard.same_disks(vm, journal)
            layer.revert(connection, vm, control, found.layer)
            layer.remove(connection, self._now(vm), control, found.layer)
            vm = self._unnamed(self._now(vm))
            if trusted:
                guard.note(connection, vm, journal, found.guard)
            else:
                guard.drop(journal)
        now = self._find(place.marker)
        stage = now.stage
        if stage is None:
            raise TargetError(f"{vm.name} holds no recovery point", remedy="stage its disks again")
        return stage

    def _unnamed(self, vm: Vm) -> Vm:
        """With the name that it had before it was built: not every version of vSphere reverts that."""
        name = vm.marks.get(NAME, "")
        if name and vm.name != name:
            spec = vim.vm.ConfigSpec(name=name)
            reconfigure(self._connection, vm.object, self._context.control, spec, f"cannot name {vm.name} {name}")
        return self._now(vm)

    def remove(self, marker: uuid.UUID) -> bool:
        connection, control, journal = self._connection, self._context.control, self._context.journal(marker)
        found = self._find(marker)
        self._unplug(found)
        guard.drop(journal)
        for vm in found.rest:
            if vm.runs:
                power.switch_off(connection, vm.object, vm.name, control, seconds=0)
            take_away(connection, vm, journal, control)
        if found.vm is not None:
            power.switch_off(connection, found.vm.object, found.vm.name, control, seconds=0)
            destroy(connection, found.vm, control)
        tidy(connection, self._context, self._find(marker))
        return found.vm is not None or bool(found.rest)

    def _unplug(self, found: Found) -> None:
        """No worker has a disk of the place."""
        options = parse_options(self._context.options)
        if not options.worker.wanted:
            return
        for vm in (found.vm, *found.rest):
            if vm is not None:
                site = site_of(self._connection, vm.object)
                worker = find_worker(self._connection, self._context, options, site)
                release(self._connection, self._context, worker, vm)

    def borrowed(self, marker: uuid.UUID) -> list[str]:
        return [
            f"{disk.file} (plugged into {worker.name})"
            for vm, worker in self._lent(marker)
            for disk in worker.disks
            if disk.file in lent_by([vm])
        ]

    def give_back(self, marker: uuid.UUID) -> None:
        for vm, worker in self._lent(marker):
            give_back(self._connection, self._context, worker.object, marker, vm)

    def _lent(self, marker: uuid.UUID) -> Iterator[tuple[Vm, Vm]]:
        """Machines of the place with the worker that has disks lent for them."""
        found, options = self._find(marker), parse_options(self._context.options)
        for vm in (found.vm, *found.rest):
            if vm is None or not lent_by([vm]):
                continue
            machine = find_worker(self._connection, self._context, options, site_of(self._connection, vm.object))
            worker = look(self._connection, machine) if machine is not None else None
            if worker is not None:
                yield vm, worker

    def adopt(self, reference: str, marker: uuid.UUID) -> Place:
        raise Unsupported(
            "machines of vSphere are not taken over: new disks are made beside them",
            remedy=f"import to a new machine; {reference} stays as it is",
        )

    # -- looking at it ---------------------------------------------------------------------------------------------

    def observe(self, build: Build) -> Observation:
        found = self._known(build)
        if found is None:
            return Observation("off", reason="the machine is gone")
        datacenter, serial = found
        machine = self._connection.managed(vim.VirtualMachine, build.ref["machine"])
        return observe.observe(self._connection, machine, datacenter, serial)

    def picture(self, build: Build) -> bytes | None:
        found = self._known(build)
        if found is None:
            return None
        machine = self._connection.managed(vim.VirtualMachine, build.ref["machine"])
        return observe.picture(self._connection, machine, build.name, found[0], self._context.control)

    def reach(self, build: Build, port: int) -> Endpoint | None:
        """By the address that its Tools tell: the guest's network must be reached from here."""
        if all(network.name is None for network in build.networks):
            return None
        addresses = self.observe(build).addresses
        return Endpoint(addresses[0], port) if addresses else None

    def accepted(self, build: Build, port: int) -> bool | None:
        return None

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        raise Unsupported("commands in guests of vSphere are not run", remedy="use a check over the network")

    # -- beside the verbs (pipeline.target.Writing, pipeline.plans.traffics.port_group.Rewires) ----------------------

    def written(self, build: Build) -> int | None:
        found = self._find(build.marker)
        if found.vm is None or found.layer is None or found.kept:
            return None
        return written.written(self._connection, found.vm)

    def wired(self, build: Build, adapter: int) -> str | None:
        vm = self._staged(self._find(build.marker))
        options = parse_options(self._context.options)
        return rewire.wired(self._connection, find_site(self._connection, options), options, vm, adapter)

    def networks(self) -> list[str]:
        connection = self._connection
        site = find_site(connection, parse_options(self._context.options))
        return [network.name for network in all_networks(connection, site)]

    def rewire(self, build: Build, adapter: int, network: str | None) -> None:
        connection, found = self._connection, self._find(build.marker)
        vm = self._staged(found)
        if found.build is None:
            raise TargetError(f"nothing is built on the disks of {vm.name}", remedy="build the machine first")
        options, networks = parse_options(self._context.options), found.build.networks
        site = find_site(connection, options)
        rewire.rewire(connection, site, options, vm, adapter, network, networks, self._context.control)

    # -- finding ---------------------------------------------------------------------------------------------------

    def _known(self, build: Build) -> tuple[str, str] | None:
        """(path of its datacenter, serial log); None: it is gone."""
        identity = build.ref["machine"]
        if identity not in self._places:
            vm = look(self._connection, self._connection.managed(vim.VirtualMachine, identity))
            if vm is None:
                return None
            site = site_of(self._connection, vm.object)
            path = path_of(self._connection, site.datacenter)
            self._places[identity] = (path, observe.serial_of(vm.devices))
        return self._places[identity]

    def _staged(self, found: Found) -> Vm:
        if found.vm is None:
            raise TargetError(f"there is no machine with the marker {found.marker}", remedy="stage it first")
        return found.vm

    def _now(self, vm: Vm) -> Vm:
        now = look(self._connection, vm.object)
        if now is None:
            raise TargetMismatch(f"{vm.name} is gone", remedy="somebody removed it: run the same command again")
        return now


def _has_worker(options: Mapping[str, object]) -> bool:
    """Options that are wrong are told by the first verb."""
    try:
        return parse_options(options).worker.wanted
    except UsageError:
        return False


def _options(wanted: Wanted) -> VmwareOptions:
    return parse_options(wanted.options)
