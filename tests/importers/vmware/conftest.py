"""The unmodified simulator of govmomi, as a vCenter and as a single ESXi host."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vmware.site import Site


@contextmanager
def _run(*flags: str) -> Iterator[Site]:
    with subprocess.Popen(
        [os.environ["VSPHERE_SIMULATOR"], "-stock", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Site(
            f"{ready['address']}:{ready['port']}",
            ready["user"],
            ready["password"],
            ready["fingerprint"],
            "-esx" in flags,
        )
        process.stdin.close()


@pytest.fixture
def vcenter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with _run() as site:
        monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", site.password)
        yield site
        site.close()


@pytest.fixture
def esxi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with _run("-esx") as site:
        monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", site.password)
        yield site
        site.close()
