"""A machine whose disks are on two datastores: the folder on the second is made before, and goes with the machine."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from simulators.vsphere_client import log_in
from simulators.vsphere_server import VSphere

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness, VmwareWorkerHarness
from pyVmomi import vim


class OnTwo(VmwareHarness):
    """The second disk is elsewhere, and the machine has a custom attribute."""

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        said["disks"] = {1: {"storage": "LocalDS_1"}}
        said["options"]["vmware"]["attributes"] = {"owner": "storage team"}
        return said


class WorkerOnTwo(OnTwo, VmwareWorkerHarness):
    pass


def folders(server: VSphere) -> list[str]:
    return sorted(entry.name for entry in Path(server.datastores["LocalDS_1"]).iterdir() if entry.is_dir())


@pytest.mark.parametrize(
    "worker", [False, pytest.param(True, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root"))]
)
def test_its_folder_comes_and_goes(tmp_path: Path, server: VSphere, worker: bool) -> None:
    before = folders(server)
    with contextlib.ExitStack() as stack:
        harness = WorkerOnTwo(tmp_path, server, stack) if worker else OnTwo(tmp_path, server)
        with harness.open() as importer:
            for sequence in (1, 2):
                place = harness.staged(importer, sequence)
                assert place.stage is not None
                assert harness.equals(place.stage, sequence)
                assert len(folders(server)) == len(before) + 1, "that of an earlier machine is gone"
            importer.remove(harness.marker)
            assert folders(server) == before


def test_what_somebody_put_into_it_stays(tmp_path: Path, server: VSphere) -> None:
    before = folders(server)
    harness = OnTwo(tmp_path, server)
    with harness.open() as importer:
        harness.staged(importer)
        [ours] = set(folders(server)) - set(before)
        kept = Path(server.datastores["LocalDS_1"]) / ours / "notes.txt"
        kept.write_text("mine")
        importer.remove(harness.marker)
    assert kept.read_text() == "mine"


def test_its_custom_attributes_are_set_when_it_is_built(tmp_path: Path, server: VSphere) -> None:
    harness = OnTwo(tmp_path, server)
    with harness.open() as importer:
        place = harness.staged(importer)
        assert place.stage is not None
        build = importer.build(place, place.stage, harness.wanted(), "production")
    client = log_in(server)
    machine = client.named(vim.VirtualMachine, build.name)
    fields = {f.key: f.name for f in client.get(client.content.customFieldsManager, "field")}
    values = {fields[v.key]: v.value for v in client.get(machine, "customValue")}
    assert values == {"owner": "storage team"}
