"""The plan whose home is VMware: machines that run in QEMU come home to the stand-in, while a client outside writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server
from simulators.vsphere_server import VSphere, run_vsphere

from pipeline.cli import exitcodes
from runs.estate.vmware import VmwareEstate
from runs.stand_in import at_home, starts
from runs.test_estate import CONDITIONS


@pytest.fixture
def home(tmp_path: Path) -> Iterator[VSphere]:
    with run_vsphere(tmp_path / "vsphere", qemu=True) as running:
        yield running
        assert running.report()["problems"] == []


@pytest.mark.slow
def test_an_estate_goes_back_from_vmware_and_then_comes_home_to_it(
    tmp_path: Path, minio_endpoint: Server, home: VSphere
) -> None:
    with VmwareEstate(tmp_path, minio_endpoint, home) as estate:
        # The database is not right at home: back by itself.
        failing = estate.plan(failing=["db"], on_failure="rollback")
        assert estate.failback("run", "start", failing).code == exitcodes.RUN_UNDONE
        assert estate.state().outcome == "rolled back"
        assert starts(home) == 1
        states = at_home(home)
        assert len(states) == 2
        assert set(states.values()) == {("poweredOff", 0)}, "off, and without a layer"
        assert estate.client.goes_on(estate.ports["takeover"])
        estate.check_kept("takeover")

        # The same plan, and it is right.
        plan = estate.plan(
            conditions=CONDITIONS,
            rehearsal={"before_cutover": True},
            approvals={"cutover": True, "gate": False, "commit": True},
        )
        started = estate.begun("run", "start", plan)
        while "a person has to set flag go" not in estate.failback("run", "show", "shop").out:
            assert started.poll() is None, estate.log
            time.sleep(1.0)
        assert estate.failback("run", "flag", "shop", "go", "--by", "Ada").code == exitcodes.OK
        assert started.wait(900) == exitcodes.RUN_ASKS, estate.log
        assert "rehearse/shop: web-1: up: passed" in estate.log
        assert set(at_home(home).values()) == {("poweredOff", 0)}
        assert estate.client.goes_on(estate.ports["takeover"])
        assert estate.failback("run", "approve", "shop", "--by", "Ada").code == exitcodes.RUN_ASKS

        assert estate.client.goes_on(estate.ports["home"])
        shown = estate.failback("run", "show", "shop").out
        assert "written there since" in shown
        assert at_home(home) == dict.fromkeys(estate.machines, ("poweredOn", 1))
        assert starts(home) == 5, "one, two for the rehearsal, two for good"
        assert estate.failback("run", "approve", "shop", "--by", "Ada").code == exitcodes.OK
        assert estate.state().outcome == "committed"
        estate.check_kept("home")
        estate.check_one_side()
        assert home.report()["orphans"] == []
