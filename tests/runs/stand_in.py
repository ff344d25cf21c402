"""The stand-in for vCenter as a plan's target."""

from __future__ import annotations

from typing import Any

from simulators.vsphere_server import VSphere

PASSWORD = "FAILBACK_VMWARE_PASSWORD"


def options_of(server: VSphere) -> dict[str, Any]:
    """Of the target; the password is in the environment."""
    return {
        "address": f"{server.address}:{server.port}",
        "user": server.user,
        "fingerprint": server.fingerprint,
        "datacenter": "DC0",
        "cluster": "DC0_C0",
        "datastore": "LocalDS_0",
        "hosts": {f"DC0_C0_H{number}": server.host for number in range(2)},
    }


def at_home(server: VSphere) -> dict[str, tuple[str, int]]:
    """By machine: its power, and how many snapshots it has."""
    return {name: (m["power"], len(m["snapshots"])) for name, m in server.report()["machines"].items()}


def starts(server: VSphere) -> int:
    """How often a machine was switched on, or was to be."""
    return int(server.report()["calls"].get("PowerOnVM_Task", 0))
