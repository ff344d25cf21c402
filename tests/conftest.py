"""Fixtures for every test: an isolated environment, real S3 servers, and one store of each kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import BACKENDS, login, open_backend
from hypothesis import HealthCheck, settings
from servers import Server, run_minio, run_versitygw

from pipeline.store.base import Store

settings.register_profile("failback", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("failback")  # a machine that is busy is no fault of the code


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, profile, proxy or setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FAILBACK_", "XDG_")) or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("FAILBACK_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MinIO for the whole run (one for each xdist worker)."""
    with run_minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A versitygw for the whole run (one for each xdist worker)."""
    with run_versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(params=["minio", "versitygw"])
def s3_endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Each S3 server in turn, its credentials in the environment: `s3_endpoint.address()` is a fresh repository."""
    return login(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture
def minio_endpoint(minio: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """MinIO with its credentials in the environment, for tests that need some S3 but not each."""
    return login(minio, monkeypatch)


@pytest.fixture(params=["directory", "minio", "versitygw"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a fresh, empty place for a repository on each kind of store that outlives a process."""
    if request.param == "directory":
        folder = tmp_path / "repository"
        folder.mkdir()
        return str(folder)
    return login(request.getfixturevalue(request.param), monkeypatch).address()


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Each backend without layers, empty."""
    opened = open_backend(request, request.param, tmp_path, monkeypatch)
    yield opened
    opened.close()
