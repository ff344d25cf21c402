"""The stand-in for vSphere, once a test file; each test gets a session of its own and no rules of the one before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from simulators.vsphere_client import DISK_BYTES, Client, log_in, stream_of
from simulators.vsphere_server import VSphere, run_vsphere

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    with run_vsphere(tmp_path_factory.mktemp("vsphere"), lease_timeout="2s") as running:
        yield running
        assert running.report()["problems"] == []


@pytest.fixture
def client(server: VSphere) -> Client:
    server.clear_rules()
    server.forget()
    return log_in(server)


@pytest.fixture
def name() -> str:
    """Of a machine that does not exist yet."""
    return f"machine-{next(_numbers)}"


@pytest.fixture(scope="session")
def raw() -> bytes:
    """What a disk holds."""
    data = bytearray(DISK_BYTES)
    data[512:1024] = b"content " * 64
    data[-4096:] = bytes(range(256)) * 16
    return bytes(data)


@pytest.fixture(scope="session")
def stream(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return stream_of(raw, tmp_path_factory.mktemp("stream"))
