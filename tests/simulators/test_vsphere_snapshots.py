"""The stand-in's snapshots hold what a disk held, also when the machine wrote after them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from simulators.vsphere_client import Client, TaskFailed, attach_spec, disks_of, machine_spec
from simulators.vsphere_server import VSphere


def write(server: VSphere, machine: str, text: str, at: int = 0) -> None:
    """What the machine's guest would do to its first disk."""
    [disk] = server.machine(machine)["disks"]
    source = Path(disk["file"]).with_suffix(".text")
    source.write_text(text)
    command = f"write -s {source} {at} 512"
    subprocess.run(["qemu-io", "-f", disk["format"], "-c", command, disk["file"]], check=True, capture_output=True)
    source.unlink()


def read(server: VSphere, machine: str, at: int = 0) -> str:
    [disk] = server.machine(machine)["disks"]
    target = Path(disk["file"]).with_suffix(".read")
    try:
        subprocess.run(
            ["qemu-img", "convert", "-f", disk["format"], "-O", "raw", disk["file"], str(target)], check=True
        )
        return target.read_bytes()[at : at + 512].rstrip(b"\0").decode().partition("\0")[0].strip()
    finally:
        target.unlink(missing_ok=True)


def text(value: str) -> str:
    return value.ljust(512)


def snapshot(client: Client, machine: Any, name: str) -> Any:
    return client.wait(machine.CreateSnapshot_Task(name, "", False, False))


def test_a_revert_brings_back_what_was(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    write(server, name, text("before"))
    base = disks_of(client, machine)[0].backing
    taken = snapshot(client, machine, "s")
    [disk] = disks_of(client, machine)
    assert disk.backing.fileName == base.fileName.replace(".vmdk", "-000001.vmdk")
    assert disk.backing.parent.fileName == base.fileName
    assert disk.backing.uuid == base.uuid
    write(server, name, text("after"))
    assert read(server, name) == "after"
    client.wait(taken.RevertToSnapshot_Task())
    assert read(server, name) == "before"
    write(server, name, text("again"))
    client.wait(taken.RevertToSnapshot_Task())
    assert read(server, name) == "before"
    client.wait(taken.RemoveSnapshot_Task(False))
    assert disks_of(client, machine)[0].backing.fileName == base.fileName
    assert (read(server, name), server.machine(name)["snapshots"]) == ("before", [])
    assert not [path for path in server.report()["disks"] if "-00000" in path and name in path]


def test_removing_a_snapshot_keeps_what_was_written(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    write(server, name, text("before"))
    taken = snapshot(client, machine, "s")
    write(server, name, text("after"))
    client.wait(taken.RemoveSnapshot_Task(False))
    [disk] = disks_of(client, machine)
    assert disk.backing.parent is None
    assert read(server, name) == "after"
    assert server.report()["orphans"] == []


def test_snapshots_lie_on_each_other(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    write(server, name, text("zero"))
    first = snapshot(client, machine, "first")
    write(server, name, text("one"))
    second = snapshot(client, machine, "second")
    write(server, name, text("two"))
    assert server.machine(name)["snapshots"] == ["first", "second"]
    client.wait(first.RemoveSnapshot_Task(False))
    assert read(server, name) == "two"
    client.wait(second.RevertToSnapshot_Task())
    assert read(server, name) == "one"
    client.wait(machine.RemoveAllSnapshots_Task())
    assert read(server, name) == "one"
    assert len([path for path in server.report()["disks"] if name in path]) == 1


def test_a_disk_written_below_its_snapshot_is_refused(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    base = Path(server.machine(name)["disks"][0]["file"])
    taken = snapshot(client, machine, "s")
    with base.open("r+b") as file:
        file.write(b"not seen by the snapshot")
    [path] = [disk["path"] for disk in server.machine(name)["disks"]]
    assert server.report()["disks"][path]["broken"]
    for start in (machine.PowerOnVM_Task, taken.RevertToSnapshot_Task, lambda: taken.RemoveSnapshot_Task(False)):
        with pytest.raises(TaskFailed) as failed:
            client.wait(start())
        assert isinstance(failed.value.fault, vim.fault.GenericVmConfigFault)
        assert "parent virtual disk has been modified" in failed.value.fault.msg


def test_an_independent_disk_is_in_no_snapshot(client: Client, name: str) -> None:
    target = client.create(machine_spec(name))
    worker = client.create(machine_spec(name + "-worker"))
    path = disks_of(client, target)[0].backing.fileName
    client.wait(worker.ReconfigVM_Task(attach_spec(path)))
    snapshot(client, worker, "s")
    own, attached = disks_of(client, worker)
    assert own.backing.parent is not None
    assert (attached.backing.fileName, attached.backing.parent) == (path, None)
