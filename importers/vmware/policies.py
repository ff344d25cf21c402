"""Storage policies, through the policy service beside vCenter (a single ESXi host has none)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyVmomi import pbm

from importers.vmware.choice import choose
from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore
from pipeline.errors import Unsupported

_PATH, _VERSION = "/pbm", "pbm.version.version11"


@dataclass(frozen=True, slots=True)
class Policy:
    """A storage policy of virtual machines."""

    id: str
    name: str


def find_policy(connection: Connection, name: str) -> Policy:
    """By name. Raises NoChoice; Unsupported on a single ESXi host."""
    if not connection.is_vcenter:
        raise Unsupported(
            f"{connection.name} is a single host, which knows no storage policies",
            remedy="leave `policy` out of the options",
        )
    return choose("storage policy", name, policies(connection), where=f"at {connection.name}", key="policy")


def policies(connection: Connection) -> list[Policy]:
    """All of a vCenter."""

    def look() -> list[Policy]:
        manager = _content(connection).profileManager
        kind = pbm.profile.ResourceType(resourceType="STORAGE")
        ids = manager.QueryProfile(kind, "REQUIREMENT")
        found = manager.RetrieveContent(ids) if ids else []
        return [Policy(str(profile.profileId.uniqueId), str(profile.name)) for profile in found]

    return connection.ask(look, f"cannot list the storage policies of {connection.name}")


def fitting(connection: Connection, policy: Policy, datastores: list[Datastore]) -> list[Datastore]:
    """Those of the datastores that the policy allows."""

    def look() -> set[str]:
        solver = _content(connection).placementSolver
        hubs = [pbm.placement.PlacementHub(hubType="Datastore", hubId=d.id) for d in datastores]
        wish = pbm.placement.CapabilityProfileRequirement(profileId=pbm.profile.ProfileId(uniqueId=policy.id))
        return {str(one.hub.hubId) for one in solver.CheckRequirements(hubs, None, [wish]) if not one.error}

    ids = connection.ask(look, f"cannot see where the storage policy {policy.name} fits")
    return [datastore for datastore in datastores if datastore.id in ids]


def _content(connection: Connection) -> Any:
    """The service takes the session of vCenter."""
    stub = connection.sibling(_PATH, _VERSION)
    return pbm.ServiceInstance("ServiceInstance", stub).RetrieveContent()
