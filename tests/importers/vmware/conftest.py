"""The unmodified simulator of govmomi, as a vCenter and as a single ESXi host; and our stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simulators.vsphere_client import Client, log_in
from simulators.vsphere_server import VSphere, run_vsphere
from simulators.vsphere_worker import PlayedWorker

from vmware.site import Site


@contextmanager
def _site(monkeypatch: pytest.MonkeyPatch, home: Path, **settings: Any) -> Iterator[tuple[Site, VSphere]]:
    with run_vsphere(home, **settings) as server:
        site = Site.of(server, esxi=bool(settings.get("esx")))
        monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", server.password)
        try:
            yield site, server
        finally:
            site.close()


@pytest.fixture
def vcenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with _site(monkeypatch, tmp_path / "vcenter", stock=True) as (site, _server):
        yield site


@pytest.fixture
def esxi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with _site(monkeypatch, tmp_path / "esxi", stock=True, esx=True) as (site, _server):
        yield site


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, VSphere]]:
    """Ours: it refuses what vSphere refuses, and can be disturbed."""
    with _site(monkeypatch, tmp_path / "standin") as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VSphere]:
    """Ours, whose leases end soon."""
    with run_vsphere(tmp_path / "vsphere", lease_timeout="3s") as running:
        yield running
        assert running.report()["problems"] == []


@pytest.fixture
def played(tmp_path: Path, server: VSphere) -> Iterator[PlayedWorker]:
    """A worker that failback makes is played by this host."""
    with PlayedWorker(server, tmp_path / "worker") as played:
        yield played


@pytest.fixture
def client(server: VSphere) -> Client:
    return log_in(server)
