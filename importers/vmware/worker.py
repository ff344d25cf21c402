"""The worker of a site: a machine with an agent, which gets other machines' disks plugged in and writes them.

There is one for each cluster and repository, found by its instance UUID; or one that the site's people made and paired
(`machine` and `agent` in the options). Ours boots into memory: it holds nothing that would be missed, and is given a
new pairing code, by way of `guestinfo`, whenever this host is not paired with the agent that runs there. The code is
taken away as soon as it is answered, for everybody who may look at the machine can read it.

An agent obeys one host, so hosts take turns. The mark AGENT says whose turn it is, and changes only by a
reconfiguration that vSphere refuses when somebody else made one meanwhile. Whoever takes a turn shows first that it
needs its agent (pipeline.agent.use) and then looks at the mark again; whoever would take it away changes the mark first
and then looks again whether the other needs it. So one of them notices. Commands of one host share its agent.
"""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyVmomi import vim

from importers.vmware import power
from importers.vmware.attach import MODES, detach
from importers.vmware.connection import Connection
from importers.vmware.find import AGENT
from importers.vmware.inventory import Site
from importers.vmware.machines import find_machine, machines_called
from importers.vmware.options import VmwareOptions, WorkerOptions
from importers.vmware.properties import values_of
from importers.vmware.tasks import question_of
from importers.vmware.vm import Vm, look, options_of, reconfigure
from importers.vmware.worker_machine import COMPLETE, make_worker, take_away_half
from pipeline.agent.code import PairingCode, StoreLogin
from pipeline.agent.controller import Agents
from pipeline.agent.remote import Remote
from pipeline.agent.use import Onlooker
from pipeline.errors import (
    AgentError,
    FailbackError,
    PlaceHeld,
    TargetBusy,
    TargetMismatch,
    TargetUnavailable,
    UsageError,
)
from pipeline.progress import Watch
from pipeline.target import Context, Control, marker_of

SETTINGS = "guestinfo.failback.worker"
ANSWER_SECONDS = 600.0
"""For a worker to boot and answer its code."""


FRESH_SECONDS = 90.0
"""Age of a sign of life, of which one comes each minute, up to which the agent counts as running."""
CLOCKS = timedelta(seconds=60)
"""By which the clocks of host and bucket may differ: a sign that is not surely later than the machine's last start may
be that of an agent that is gone."""
BOOTED = "summary.runtime.bootTime"
"""When the machine was switched on. A reset does not change it: an order that nobody takes then says so after a while,
and the next command finds the sign of life too old."""
PATIENCE_SECONDS = 600.0
"""For another host's command to be done with the worker."""
LOOK_SECONDS = 2.0
WATCH_SECONDS = 5.0
"""Between looks at the machine while its agent is waited for."""
ATTEMPTS = 5
"""To take the worker, when others do so in the same moment."""


class WorkerOff(TargetUnavailable):
    """Somebody or something switched it off while it was needed."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Its machine and its agent."""

    machine: Any
    name: str
    remote: Remote
    """Who waits for it hears soon when the machine is off, gone, or asks something: WorkerOff, TargetMismatch,
    TargetBusy."""
    turn: Callable[[], AbstractContextManager[None]]
    """Commands of this host take turns with what changes the machine."""


def find_worker(connection: Connection, context: Context, options: VmwareOptions, site: Site) -> Any | None:
    """The vim.VirtualMachine; None: there is none. Raises TargetMismatch for one of your own that is not there."""
    own = options.worker.machine
    if not own:
        return find_machine(connection, marker_of_worker(context, site))
    found = machines_called(connection, site.vm_folder.object, own)
    if len(found) == 1:
        return found[0]
    raise TargetMismatch(
        f"{len(found)} machines in the datacenter {site.datacenter.name} are called {own}",
        remedy="correct `worker.machine` in the options",
    )


def marker_of_worker(context: Context, site: Site) -> uuid.UUID:
    """Its instance UUID."""
    return marker_of(context.repository.document.id, "worker", site.compute.id, "worker")


@contextmanager
def ready_worker(connection: Connection, context: Context, options: VmwareOptions, site: Site) -> Iterator[Worker]:
    """Made, switched on and paired as far as it is not, and not taken by another host until the end. Raises PlaceHeld
    when another one needs it for too long, AgentError when it does not come up."""
    if options.worker.agent:
        vm = _seen(connection, find_worker(connection, context, options, site))
        agent = options.worker.agent
        agents = _watching(connection, context, vm)
        theirs = agents.agent(agent)
        theirs.attend()
        yield Worker(vm.object, vm.name, theirs, lambda: agents.known.turn(agent))
        return
    marker = marker_of_worker(context, site)
    agents = Agents(context.repository, context.pairings or context.state, context.control)

    def turn() -> AbstractContextManager[None]:
        tell = context.control.tell
        return agents.known.turn(
            f"worker-{marker.hex}", lambda: tell("waiting for another command of this host to be done with the worker")
        )

    with ExitStack() as stack:
        with turn():
            vm, agent = _Taking(connection, context, options, site, agents, marker).taken(stack)
        yield Worker(vm.object, vm.name, _watching(connection, context, vm).agent(agent), turn)


def _watching(connection: Connection, context: Context, vm: Vm) -> Agents:
    control = _Watchful(connection, context.control, vm)
    return Agents(context.repository, context.pairings or context.state, control)


class _Watchful:
    """A control of whoever waits for the agent: its machine is looked at, too, so that nobody waits for one that is off
    or stands still. A platform that is silent meanwhile does not matter: the agent works without it."""

    def __init__(self, connection: Connection, control: Control, vm: Vm) -> None:
        self._connection, self._control, self._vm = connection, control, vm
        self._looked = time.monotonic()

    @property
    def watch(self) -> Watch:
        return self._control.watch

    def tell(self, text: str) -> None:
        self._control.tell(text)

    def check(self) -> None:
        self._control.check()
        if time.monotonic() - self._looked < WATCH_SECONDS:
            return
        name = self._vm.name
        try:
            off = power.power_of(self._connection, self._vm.object) == "poweredOff"
            question = None if off else question_of(self._connection, self._vm.object)
        except TargetMismatch as error:
            raise TargetMismatch(
                f"the worker {name} is gone: somebody removed it",
                remedy="run the same command again: another one is made",
            ) from error
        except TargetUnavailable:
            return
        finally:
            self._looked = time.monotonic()
        if off:
            raise WorkerOff(f"the worker {name} was switched off", remedy="run the same command again: it goes on")
        if question is not None:
            choices = ", ".join(f"{label!r}" for label in question.choices.values())
            raise TargetBusy(
                f"the worker {name} stands still and waits for an answer: {question.text} ({choices})",
                remedy="mend what it complains of and answer it in the vSphere client, then run the same command again",
            )


class _Taking:
    """How a worker of ours becomes this host's. Other commands of this host wait meanwhile."""

    def __init__(
        self,
        connection: Connection,
        context: Context,
        options: VmwareOptions,
        site: Site,
        agents: Agents,
        marker: uuid.UUID,
    ) -> None:
        self._connection, self._context, self._options, self._site = connection, context, options, site
        self._agents, self._marker = agents, marker
        self._control = context.control

    def taken(self, stack: ExitStack) -> tuple[Vm, str]:
        """Its machine and its agent, which answers. `stack` gets what shows others that we need it."""
        for _ in range(ATTEMPTS):
            vm, other = self._look(), None
            owner = vm.marks.get(AGENT, "") if vm is not None else ""
            if vm is not None and owner in self._agents.known.agents():
                if vm.runs and COMPLETE in vm.marks and self._resumed(stack, vm, owner):
                    return vm, owner
            elif vm is not None and owner:
                other = self._agents.onlooker(owner)
                self._wait(other, vm, owner)
                vm = self._look()
                if vm is None or vm.marks.get(AGENT, "") != owner:
                    continue
            code = self._code()
            try:
                with ExitStack() as meanwhile:
                    meanwhile.enter_context(self._agents.use(code.agent))
                    ours = self._ours(vm, owner, other, code)
                    if ours:
                        stack.enter_context(meanwhile.pop_all())
            except FailbackError:
                self._agents.discard(code.agent)
                raise
            if ours:
                return self._paired(code), code.agent
            self._agents.discard(code.agent)
        raise PlaceHeld(
            f"the worker for {self._site.compute.name} is taken by other hosts time and again",
            remedy="run the same command again when they are done",
        )

    def _look(self) -> Vm | None:
        machine = find_machine(self._connection, self._marker)
        return look(self._connection, machine) if machine is not None else None

    def _resumed(self, stack: ExitStack, vm: Vm, agent: str) -> bool:
        """It is ours as it is."""
        with ExitStack() as meanwhile:
            meanwhile.enter_context(self._agents.use(agent))
            now = look(self._connection, vm.object)
            if now is None or not now.runs or now.marks.get(AGENT) != agent:
                return False
            try:
                _answers(self._connection, now, self._agents.agent(agent))
            except AgentError:
                return False
            stack.enter_context(meanwhile.pop_all())
        return True

    def _wait(self, other: Onlooker, vm: Vm, owner: str) -> None:
        """Until the host whose agent runs there needs it no longer, or is dead. Raises PlaceHeld."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = threading.Event()
        told = False
        while not other.over():
            self._control.check()
            if time.monotonic() > deadline:
                raise PlaceHeld(
                    f"the worker {vm.name} is used by another host's command, by way of the agent {owner}",
                    remedy="wait for it, or end it there; then run the same command again",
                )
            if not told:
                self._control.tell(f"waiting for another host to be done with the worker {vm.name}, or to be dead")
                told = True
            pause.wait(LOOK_SECONDS)

    def _code(self) -> PairingCode:
        options = self._options.worker
        address = options.repository or self._context.address
        if not address:
            raise UsageError("nothing says where the worker finds the repository", remedy="say it: `worker.repository`")
        login = StoreLogin.of_profile(options.login) if options.login else None
        return self._agents.pair("worker", address, login=login if login and login.access_key else None)

    def _ours(self, vm: Vm | None, owner: str, other: Onlooker | None, code: PairingCode) -> bool:
        """The machine is there, whole, and bears the mark of our new agent. False: another host was faster."""
        connection, context = self._connection, self._context
        if vm is not None and take_away_half(connection, context, vm.object, self._marker):
            vm = None
        if vm is None:
            self._control.tell(f"making a worker for {self._site.compute.name}")
            try:
                make_worker(connection, context, self._options, self._site, self._marker, code.agent)
            except TargetBusy:
                if self._look() is None:
                    raise
                return False  # another host makes one
            return True
        if not self._marked(vm, code.agent, vm.change):
            return False
        if other is not None and not other.over():
            # It began to need it just before we took it, and does not know yet.
            now = _seen(connection, vm.object)
            if now.marks.get(AGENT) == code.agent:
                self._marked(now, owner, now.change)
            return False
        self._agents.discard(owner)
        return True

    def _marked(self, vm: Vm, agent: str, change: str) -> bool:
        """The mark is set, unless somebody changed the machine since it was looked at."""
        spec = vim.vm.ConfigSpec(extraConfig=options_of({AGENT: agent}), changeVersion=change)
        about = f"cannot take the worker {vm.name}"
        try:
            reconfigure(
                self._connection, vm.object, self._control, spec, about, lambda now: now.marks.get(AGENT) == agent
            )
        except TargetBusy as error:
            self._control.tell(error.message)
            return False
        return True

    def _paired(self, code: PairingCode) -> Vm:
        """The worker started anew with the new code: what runs there is somebody else's, or answers to nobody. What
        was plugged in for a command that is dead is not any more."""
        connection, control = self._connection, self._control
        vm = _seen(connection, find_machine(connection, self._marker))
        settings = _settings(self._options.worker, code.encode(), vm.name)
        text = base64.b64encode("".join(f"{k}={v}\n" for k, v in settings.items() if v).encode()).decode()
        power.switch_off(connection, vm.object, vm.name, control, seconds=0)
        detach(connection, vm.object, control, [disk.file for disk in vm.disks if disk.mode in MODES])
        self._tell_settings(vm, text)
        try:
            power.switch_on(connection, vm.object, vm.name, control)
            control.tell(f"waiting for the worker {vm.name} to boot and answer")
            self._agents.await_answer(code.agent, ANSWER_SECONDS)
        finally:
            now = look(connection, vm.object)
            if now is not None and now.marks.get(AGENT) == code.agent:
                self._tell_settings(vm, "")
        return vm

    def _tell_settings(self, vm: Vm, text: str) -> None:
        spec = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key=SETTINGS, value=text)])
        about = f"cannot tell the worker {vm.name} its settings"
        reconfigure(self._connection, vm.object, self._control, spec, about)


def _answers(connection: Connection, vm: Vm, remote: Remote) -> None:
    """Raises AgentError when it does not. It knows then that orders are about to come."""
    booted = values_of(connection, vm.object, BOOTED).get(BOOTED)
    if booted is None or not remote.lives(FRESH_SECONDS, since=booted + CLOCKS):
        remote.inventory()  # an order that an idle one does not see for a while


def _settings(options: WorkerOptions, code: str, name: str) -> dict[str, str]:
    """As the worker's `config` takes them."""
    authorities = ""
    if options.ca:
        try:
            authorities = base64.b64encode(Path(options.ca).read_bytes()).decode()
        except OSError as error:
            raise UsageError(f"cannot read {options.ca}: {error.strerror}", remedy="correct `worker.ca`") from error
    return {
        "code": code,
        "hostname": name,
        "address": options.address,
        "gateway": options.gateway,
        "dns": ",".join(options.dns),
        "search": " ".join(options.search),
        "ntp": ",".join(options.ntp),
        "proxy": options.proxy,
        "ca_base64": authorities,
        "idle": str(options.idle),
    }


def _seen(connection: Connection, machine: Any) -> Vm:
    vm = look(connection, machine) if machine is not None else None
    if vm is None:
        raise TargetMismatch("the worker is gone", remedy="run the same command again: another one is made")
    return vm
