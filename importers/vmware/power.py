"""On and off."""

from __future__ import annotations

import threading
import time
from typing import Any

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection
from importers.vmware.faults import CUT, REFUSED, explain
from importers.vmware.properties import values_of
from importers.vmware.tasks import Question, wait
from pipeline.errors import BootError, TargetBusy, TargetUnavailable
from pipeline.target import Control

STEP_SECONDS = 0.5
_MOVED = ("i moved it", "moved")


def power_of(connection: Connection, machine: Any) -> str:
    return str(values_of(connection, machine, "runtime.powerState").get("runtime.powerState", ""))


def switch_on(connection: Connection, machine: Any, name: str, control: Control) -> None:
    """Returns when vSphere says that it runs; one that runs already is left alone.

    A machine that asks whether it was moved or copied was moved: its SMBIOS UUID, that licences hang on, stays. Any
    other question is for a person. Raises BootError.
    """
    about = f"cannot switch {name} on"
    if power_of(connection, machine) == "poweredOn":
        return
    try:
        task = connection.order(machine.PowerOnVM_Task, about)
        wait(connection, task, control, about, machine=machine, answer=answer)
    except TargetUnavailable:
        if power_of(connection, machine) != "poweredOn":
            raise
    except TargetBusy as error:
        if power_of(connection, machine) == "poweredOn":
            return
        raise BootError(error.message, remedy=error.remedy) from error


def switch_off(connection: Connection, machine: Any, name: str, control: Control, *, seconds: float) -> str:
    """How it went off; empty when it was off. Gracefully for `seconds` if its Tools run, then hard."""
    if power_of(connection, machine) == "poweredOff":
        return ""
    if seconds > 0 and ask_to_shut_down(connection, machine):
        control.tell(f"{name} is asked to shut down")
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while time.monotonic() < deadline:
            control.check()
            if power_of(connection, machine) == "poweredOff":
                return "it shut down"
            pause.wait(STEP_SECONDS)
    cut_power(connection, machine, name, control)
    return "it was switched off hard"


def cut_power(connection: Connection, machine: Any, name: str, control: Control) -> None:
    """Hard. One that is off is left alone."""
    if power_of(connection, machine) == "poweredOff":
        return
    about = f"cannot switch {name} off"
    try:
        task = connection.order(machine.PowerOffVM_Task, about)
        wait(connection, task, control, about, machine=machine, cancel=False)
    except TargetBusy:
        if power_of(connection, machine) != "poweredOff":
            raise
    except TargetUnavailable:
        if power_of(connection, machine) != "poweredOff":
            raise


def answer(question: Question) -> str | None:
    """The key of the answer that we may give without asking a person; None: there is none."""
    if "moved" in question.text.lower() and "copied" in question.text.lower():
        for key, label in question.choices.items():
            if label.strip().lower().startswith(_MOVED) or key.lower().endswith("moved"):
                return key
    return None


def ask_to_shut_down(connection: Connection, machine: Any) -> bool:
    """Ask the guest. False: there are no Tools in the guest that would do it."""
    try:
        connection.asked(machine.ShutdownGuest)
    except (vim.fault.ToolsUnavailable, vim.fault.InvalidPowerState, vmodl.fault.NotSupported):
        return False
    except (REFUSED, *CUT) as fault:
        raise explain(fault, "cannot ask the guest to shut down") from fault
    return True
