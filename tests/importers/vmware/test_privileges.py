"""The role: what VMware's own description of the API asks for, looked at where it is needed."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.inventory import Entity
from importers.vmware.privileges import ROLE, Where, check_privileges, needed, root_of
from vmware.site import Site


def privilege_of(method: str) -> str:
    """As pyvmomi has it from VMware."""
    *path, name = method.split(".")
    kind: Any = vim
    for part in path:
        kind = getattr(kind, part)
    return str(kind._GetMethodInfo(name).privId)


def objects_of(vcenter: Site, connection: Connection) -> list[tuple[Where, Entity]]:
    site = vcenter.place(connection)
    return [("folder", site.vm_folder), ("pool", site.pool), ("root", root_of(connection))]


@pytest.mark.parametrize("privilege", [p for p in ROLE if p.method], ids=lambda p: p.id)
def test_a_right_that_is_said_to_be_documented_is(privilege: Any) -> None:
    assert privilege_of(privilege.method) == privilege.id


def test_every_right_of_the_role_is_one_that_vsphere_has(vcenter: Site) -> None:
    """The simulator has the roles of a real vCenter; that of administrators holds every right."""
    roles = vcenter.connect().content.authorizationManager.roleList
    known = {right for role in roles for right in role.privilege}
    assert {p.id for p in ROLE} <= known
    assert len({(p.id, p.on) for p in ROLE}) == len(ROLE)


def test_an_administrator_lacks_nothing(vcenter: Site) -> None:
    connection = vcenter.connect()
    objects = objects_of(vcenter, connection)
    assert list(check_privileges(connection, objects, ["guest", "cleaning", "attributes"])) == []


def test_what_is_missing_is_named_with_its_object_and_what_is_lost(
    vcenter: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator grants everything; its answer is turned round for three rights."""
    connection = vcenter.connect()
    refused = {"VApp.Import", "VirtualMachine.Config.AddNewDisk", "Sessions.TerminateSession"}
    real = vim.AuthorizationManager.HasPrivilegeOnEntities

    def some(self: Any, entities: Any, session: str, ids: list[str]) -> Any:
        answer = real(self, entities, session, ids)
        for one in answer:
            for availability in one.privAvailability:
                availability.isGranted = availability.isGranted and availability.privId not in refused
        return answer

    monkeypatch.setattr(vim.AuthorizationManager, "HasPrivilegeOnEntities", some)
    objects = objects_of(vcenter, connection)
    found = {f.message: f for f in check_privileges(connection, objects, ["cleaning"])}
    assert {(f.severity, message) for message, f in found.items()} == {
        ("error", "the user lacks VApp.Import on the pool Resources"),
        ("error", "the user lacks VirtualMachine.Config.AddNewDisk on the folder vm"),
        ("warning", "the user lacks Sessions.TerminateSession on the root of the inventory"),
    }
    assert all(f.remedy for f in found.values())


def test_only_what_is_used_is_asked_for() -> None:
    plain, all_of_it = needed([]), needed(["worker", "guest", "attributes", "isolation", "cleaning"])
    assert {p.purpose for p in plain} == {"always"}
    assert len(all_of_it) == len(ROLE)
