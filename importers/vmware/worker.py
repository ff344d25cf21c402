"""The worker of a site: a machine with an agent, which gets other machines' disks plugged in and writes them.

There is one for each cluster and repository, found by its instance UUID; or one that the site's people made and paired
(`machine` and `agent` in the options). Ours boots into memory: it holds nothing that would be missed, and is given a
new pairing code, by way of `guestinfo`, whenever this host is not paired with the agent that runs there. The code is
taken away as soon as it is answered, for everybody who may look at the machine can read it.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyVmomi import vim

from importers.vmware import power
from importers.vmware.connection import Connection
from importers.vmware.find import AGENT
from importers.vmware.inventory import Site
from importers.vmware.machines import find_machine, machines_called
from importers.vmware.options import VmwareOptions, WorkerOptions
from importers.vmware.properties import values_of
from importers.vmware.vm import Vm, look, options_of, reconfigure
from importers.vmware.worker_machine import make_worker, take_away_half
from pipeline.agent.code import StoreLogin
from pipeline.agent.controller import Agents
from pipeline.agent.remote import Remote
from pipeline.errors import AgentError, TargetMismatch, UsageError
from pipeline.target import Context, marker_of

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


@dataclass(frozen=True, slots=True)
class Worker:
    """Its machine and its agent."""

    machine: Any
    name: str
    remote: Remote


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


def ready_worker(connection: Connection, context: Context, options: VmwareOptions, site: Site) -> Worker:
    """Made, switched on and paired as far as it is not. Raises AgentError when it does not come up."""
    agents = Agents(context.repository, context.pairings or context.state, context.control)
    machine = find_worker(connection, context, options, site)
    if options.worker.agent:
        vm = _seen(connection, machine)
        theirs = agents.agent(options.worker.agent)
        theirs.attend()
        return Worker(machine, vm.name, theirs)
    if machine is not None and take_away_half(connection, context, machine, marker_of_worker(context, site)):
        machine = None
    if machine is None:
        context.control.tell(f"making a worker for {site.compute.name}")
        machine = make_worker(connection, context, options, site, marker_of_worker(context, site))
    vm = _seen(connection, machine)
    remote = _paired(connection, agents, vm) if vm.runs else None
    if remote is None:
        remote = _pair(connection, context, options.worker, agents, vm)
    return Worker(machine, vm.name, remote)


def _paired(connection: Connection, agents: Agents, vm: Vm) -> Remote | None:
    """None: this host is not paired with what runs there, or nothing does."""
    agent = vm.marks.get(AGENT, "")
    for listed in agents.list() if agent else ():
        if listed.agent == agent and listed.ours and listed.paired and not listed.problem:
            remote = agents.agent(agent)
            booted = values_of(connection, vm.object, BOOTED).get(BOOTED)
            if booted is not None and remote.lives(FRESH_SECONDS, since=booted + CLOCKS):
                return remote  # without an order that an idle one would not see for a while
            try:
                remote.inventory()
            except AgentError:
                return None
            return remote
    return None


def _pair(connection: Connection, context: Context, options: WorkerOptions, agents: Agents, vm: Vm) -> Remote:
    """A new code, and the worker started anew with it: what runs there may have been somebody else's."""
    address = options.repository or context.address
    if not address:
        raise UsageError("nothing says where the worker finds the repository", remedy="say it: `worker.repository`")
    login = StoreLogin.of_profile(options.login) if options.login else None
    code = agents.pair("worker", address, login=login if login and login.access_key else None)
    control = context.control
    settings = _settings(options, code.encode(), vm.name)
    text = base64.b64encode("".join(f"{k}={v}\n" for k, v in settings.items() if v).encode()).decode()
    power.switch_off(connection, vm.object, vm.name, control, seconds=0)
    _set(connection, vm, context, text, code.agent)
    power.switch_on(connection, vm.object, vm.name, control)
    control.tell(f"waiting for the worker {vm.name} to boot and answer")
    try:
        agents.await_answer(code.agent, ANSWER_SECONDS)
    finally:
        _set(connection, vm, context, "", code.agent)
    return agents.agent(code.agent)


def _set(connection: Connection, vm: Vm, context: Context, text: str, agent: str) -> None:
    settings = [vim.option.OptionValue(key=SETTINGS, value=text), *options_of({AGENT: agent})]
    spec = vim.vm.ConfigSpec(extraConfig=settings)
    reconfigure(connection, vm.object, context.control, spec, f"cannot tell the worker {vm.name} its settings")


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
    vm = look(connection, machine)
    if vm is None:
        raise TargetMismatch("the worker is gone", remedy="run the same command again: another one is made")
    return vm
