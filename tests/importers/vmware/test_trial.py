"""The deep trial leaves nothing behind, and tells what is otherwise than believed."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest
import yaml
from simulators.vsphere_server import VSphere
from typer.testing import CliRunner

from importers.vmware.trial import Trial
from importers.vmware.trial_stream import LAST, SIZE, TrialStream
from pipeline.cli.deep import _run_of
from pipeline.cli.main import app
from pipeline.errors import TargetError, UsageError
from pipeline.target import Tried
from vmware.site import Control, Site, all_machines

Standin = tuple[Site, VSphere]
RUN = uuid.UUID("0b54f2f0-0f3e-4a0e-9a52-6a0f6ff7d0aa")


def tried(site: Site, **options: object) -> dict[str, Tried]:
    trial = Trial(site.connect(**options), site.options(**options), Control(), RUN)
    return {one.point: one for one in trial.points()}


def hosts(server: VSphere) -> dict[str, str]:
    return {f"DC0_C0_H{number}": server.host for number in range(2)}


BELIEVED = {
    # What the stand-in does not have, or refuses as some hosts may.
    "hosts tell versions and guests": "different",
    "a session can be cloned by ticket": "different",
    "a compressed stream of unknown length is imported": "failed",
}


def test_on_the_stand_in_every_point_ends_as_believed_and_nothing_is_left(standin: Standin) -> None:
    site, server = standin
    found = tried(site, hosts=hosts(server))
    assert {name: one.outcome for name, one in found.items() if one.outcome != "as expected"} == BELIEVED, found
    report = server.report()
    assert (report["machines"], report["orphans"], report["leases"]) == ({}, [], [])
    assert report["problems"] == []


def test_one_point_that_fails_stops_only_those_that_build_on_it(standin: Standin) -> None:
    site, server = standin
    server.rule("CreateSnapshot_Task", "task-fault", fault="SnapshotFault", text="no")
    server.rule("nfc", "status", status=500)
    found = tried(site, hosts=hosts(server))
    outcomes = {name: one.outcome for name, one in found.items()}
    assert outcomes["a stored stream of known length is imported"] == "failed"
    assert outcomes["instance UUID and SMBIOS UUID are kept"] == "skipped"
    assert outcomes["a lease that is given up takes its machine away"] == "as expected"
    assert server.report()["machines"] == {}


def test_what_a_killed_trial_left_is_taken_away_by_the_next_one(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    killed = Trial(connection, site.options(hosts=hosts(server)), Control(), RUN).points()
    for one in killed:
        if one.point == "a machine starts, and shows its screen":
            break
    assert server.report()["machines"]
    later = Trial(site.connect(), site.options(), Control(), RUN)
    later.clean()
    assert server.report()["machines"] == {}
    assert all_machines(connection) == {}


def test_a_trial_without_a_datastore_makes_nothing(standin: Standin) -> None:
    site, server = standin
    with pytest.raises(TargetError, match="no datastore called 'fast'"):
        tried(site, datastore="fast")
    assert "ImportVApp" not in server.report()["calls"]


def test_the_streams_are_disks(tmp_path: Path) -> None:
    for level in (0, 1):
        stream = TrialStream(level)
        file = tmp_path / f"{level}.vmdk"
        file.write_bytes(b"".join(stream))
        assert stream.length in (None, file.stat().st_size)
        raw = tmp_path / f"{level}.raw"
        subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", file, raw], check=True)
        data = raw.read_bytes()
        assert (len(data), data[-len(LAST) :]) == (SIZE, LAST)
        assert data[: 1 << 16] == bytes([1]) * (1 << 16)


def test_the_doctor_writes_a_report(standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, server = standin
    mapping, report = tmp_path / "mapping.yaml", tmp_path / "report.json"
    values = site.values(hosts=hosts(server), worker={"network": "VM Network"})
    mapping.write_text(yaml.safe_dump({"options": {"vmware": values}}))
    monkeypatch.setenv("FAILBACK_REPOSITORY", str(tmp_path / "repository"))
    (tmp_path / "repository").mkdir()
    assert CliRunner().invoke(app, ["repository", "init", "--no-encryption"]).exit_code == 0
    arguments = ["doctor", "--to", "vmware", "--map", str(mapping), "--deep", str(report)]
    mapping.write_text(yaml.safe_dump({"options": {"vmware": values | {"password": {"variable": "NOT_SET"}}}}))
    bad = CliRunner().invoke(app, arguments)
    assert (bad.exit_code, report.exists()) == (11, False)
    assert f"nothing was tried on vmware, and {report} was not written" in bad.output
    mapping.write_text(yaml.safe_dump({"options": {"vmware": values}}))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = json.loads(report.read_text())
    assert written["complete"] is True
    assert len(written["points"]) == 19
    assert site.password not in report.read_text()


def test_what_is_no_report_is_not_overwritten_and_a_trial_needs_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILBACK_REPOSITORY", str(tmp_path / "repository"))
    (tmp_path / "repository").mkdir()
    assert CliRunner().invoke(app, ["repository", "init", "--no-encryption"]).exit_code == 0
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    alone = CliRunner().invoke(app, ["doctor", "--deep", str(mine)])
    assert alone.exit_code == 2
    files = CliRunner().invoke(app, ["doctor", "--to", "files", "--deep", str(tmp_path / "report.json")])
    assert (files.exit_code, "no such trial" in files.output) == (2, True)
    with pytest.raises(UsageError, match="is no report"):
        _run_of(mine)
    assert mine.read_text() == "years of work"
