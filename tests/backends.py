"""One store of each kind, for contract tests."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from servers import Server

from pipeline.store.address import MemoryAddress, S3Address, parse_address
from pipeline.store.base import Store
from pipeline.store.directory import DirectoryStore
from pipeline.store.memory import MemoryStore

BACKENDS = ("memory", "directory", "minio", "versitygw")


def open_backend(request: pytest.FixtureRequest, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A fresh backend of that kind."""
    if kind == "memory":
        return MemoryStore(str(MemoryAddress(secrets.token_hex(4))))
    if kind == "directory":
        return DirectoryStore(tmp_path / f"store-{secrets.token_hex(4)}", create=True)
    from pipeline.store.s3 import S3Store

    parsed = parse_address(login(request.getfixturevalue(kind), monkeypatch).address())
    assert isinstance(parsed, S3Address)
    return S3Store(parsed)


def login(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Put the credentials of a server into the environment."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server
