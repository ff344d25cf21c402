"""What starts a machine without anybody's click: its host's autostart list, and high availability of its cluster.

Of a machine that was switched off by hand high availability starts none by itself; its restart priority is taken away
all the same, for the case that vCenter or a host remembers it as running. The autostart list was never tried on a real
host: the stand-in has none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.properties import values_of
from importers.vmware.tasks import wait
from pipeline.errors import TargetMismatch
from pipeline.target import Control

NONE = "none"
DISABLED = "disabled"
CLUSTERS = "clusterRestartPriority"
"""An entry that says the same as none."""
POWER_ON = "powerOn"


def autostart_of(connection: Connection, machine: Any) -> str:
    """The action of the machine's entry (powerOn, none, ...); empty: it has none, or its host has no such list."""
    manager = _manager(connection, machine)
    entry = _entry(connection, manager, machine) if manager is not None else None
    return "" if entry is None else str(entry.startAction)


def set_autostart(connection: Connection, machine: Any, action: str) -> None:
    """Of a machine that has an entry."""
    manager = _manager(connection, machine)
    if manager is None:
        return
    entry = _entry(connection, manager, machine)
    if entry is None or str(entry.startAction) == action:
        return
    entry.startAction = action
    spec = vim.host.AutoStartManager.Config(powerInfo=[entry])
    about = f"cannot change how {machine._moId} starts with its host"
    connection.ask(partial(manager.ReconfigureAutostart, spec), about)


def priority_of(connection: Connection, machine: Any) -> str | None:
    """The machine's own restart priority; empty: as its cluster has it. None: no cluster with high availability."""
    cluster = _cluster(connection, machine)
    if cluster is None:
        return None
    entry = _own(connection, cluster, machine)
    settings = entry.dasSettings if entry is not None else None
    return str(settings.restartPriority or "") if settings is not None else ""


def set_priority(connection: Connection, machine: Any, priority: str, control: Control) -> None:
    """Empty: as its cluster has it."""
    cluster = _cluster(connection, machine)
    if cluster is None:
        return
    entry = _own(connection, cluster, machine)
    if entry is None and not priority:
        return
    settings = vim.cluster.DasVmSettings(restartPriority=priority or CLUSTERS)
    info = vim.cluster.DasVmConfigInfo(key=machine, dasSettings=settings)
    change = vim.cluster.DasVmConfigSpec(operation="add" if entry is None else "edit", info=info)
    spec = vim.cluster.ConfigSpecEx(dasVmConfigSpec=[change])
    about = f"cannot change the restart priority of {machine._moId}"
    task = connection.ask(partial(cluster.ReconfigureComputeResource_Task, spec, True), about)
    wait(connection, task, control, about)


def _manager(connection: Connection, machine: Any) -> Any | None:
    host = values_of(connection, machine, "runtime.host").get("runtime.host")
    if host is None:
        return None
    return values_of(connection, host, "configManager.autoStartManager").get("configManager.autoStartManager")


def _entry(connection: Connection, manager: Any, machine: Any) -> Any | None:
    try:
        entries = values_of(connection, manager, "config.powerInfo").get("config.powerInfo", [])
    except TargetMismatch:  # it is named, and not there: such a host starts nothing by itself
        return None
    return next((entry for entry in entries if entry.key == machine), None)


def _cluster(connection: Connection, machine: Any) -> Any | None:
    host = values_of(connection, machine, "runtime.host").get("runtime.host")
    parent = values_of(connection, host, "parent").get("parent") if host is not None else None
    return parent if isinstance(parent, vim.ClusterComputeResource) else None


def _own(connection: Connection, cluster: Any, machine: Any) -> Any | None:
    found = values_of(connection, cluster, "configurationEx").get("configurationEx")
    entries = (found.dasVmConfig if found is not None else None) or []
    return next((entry for entry in entries if entry.key == machine), None)
