"""The stand-in for vCenter and ESXi (tests/simulators/vsphere) as a child process that dies with the test run.

What it imitates and how it is told to misbehave stands in its README.md.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from servers import die_with_parent, tool

_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class VSphere:
    """A running stand-in. Its inventory: datacenter DC0, standalone host DC0_H0, cluster DC0_C0 with two hosts,
    datastores LocalDS_0 and LocalDS_1, networks "VM Network" and DC0_DVPG0, no machines."""

    address: str
    port: int
    user: str
    password: str = field(repr=False)
    fingerprint: str
    """SHA-256 of the certificate, AA:BB:…"""
    certificate: str = field(repr=False)
    """PEM."""
    process: subprocess.Popen[bytes] = field(repr=False)
    control: str = ""
    """Base URL of the control address; empty for the stock simulator."""
    host: str = ""
    """Address and port that a vCenter sends uploads to."""
    host_fingerprint: str = ""
    host_certificate: str = field(default="", repr=False)
    datastores: dict[str, str] = field(default_factory=dict)
    """Name to local folder."""

    def report(self) -> dict[str, Any]:
        """What happened: calls, uploads, machines, disks, orphans, leases, sessions, problems."""
        answer: dict[str, Any] = self._control("GET", "/report")
        return answer

    def machine(self, name: str) -> dict[str, Any]:
        """One machine of the report. Raises ValueError when there is none."""
        machine: dict[str, Any] = self._control("GET", f"/machines/{name}")
        return machine

    def forget(self) -> None:
        """Calls and uploads so far are no longer reported."""
        self._control("DELETE", "/report")

    def rule(self, method: str, action: str, **more: Any) -> None:
        """Disturb calls: see Rule in rules.go."""
        self._control("POST", "/rules", {"method": method, "action": action, **more})

    def rules(self) -> list[dict[str, Any]]:
        """The rules, each with how often it `fired`."""
        answer: list[dict[str, Any]] = self._control("GET", "/rules")
        return answer

    def clear_rules(self) -> None:
        self._control("DELETE", "/rules")

    def set_host(self, *, reachable: bool | None = None, rate: int | None = None) -> None:
        """Take the host that uploads go to off the network, or limit what it takes to `rate` bytes a second (0: no
        limit)."""
        wish = {"reachable": reachable, "rate": rate}
        self._control("POST", "/host", {key: value for key, value in wish.items() if value is not None})

    def resize(self, datastore: str, size: int) -> None:
        self._control("POST", f"/datastores/{datastore}", {"size": size})

    def guest(self, machine: str, **state: Any) -> None:
        """Play the guest of a machine, now and whenever it is on: see GuestState in guest.go."""
        self._control("POST", f"/machines/{machine}/guest", state)

    def question(self, machine: str, **question: Any) -> None:
        self._control("POST", f"/machines/{machine}/question", question)

    def forward(self, machine: str, guest_port: int, **where: Any) -> str:
        """ADDRESS:PORT here that leads to a port of the guest that QEMU runs: see Forward in forward.go."""
        answer: str = self._control("POST", f"/machines/{machine}/forward", {"guest": guest_port, **where})
        return answer

    def add_user(self, name: str, password: str, grants: dict[str, list[str]]) -> None:
        """`grants`: privileges by an object's name or id, "*" for everything."""
        self._control("POST", "/users", {"name": name, "password": password, "grants": grants})

    def restrict_licence(self, restricted: bool = True) -> None:
        self._control("POST", "/license", {"restricted": restricted})

    def end_sessions(self) -> None:
        self._control("DELETE", "/sessions")

    def _control(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control + path, data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{method} {path}: {error.read().decode().strip()}") from error


@contextmanager
def run_vsphere(home: Path, **settings: bool | int | str) -> Iterator[VSphere]:
    """The stand-in with its datastores below `home`. `settings` are its flags (settings.go): esx, stock, qemu, chunked,
    direct, lease_timeout="15s", session_timeout="5s", upload_rate=100_000_000, datastore_size, datastores, clusters,
    cluster_hosts, pods, drop_empty_controllers."""
    binary = tool("vsphere")
    home.mkdir(parents=True, exist_ok=True)
    flags = [f"-{name.replace('_', '-')}={str(value).lower()}" for name, value in settings.items()]
    log = home / "vsphere.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [binary, f"-home={home / 'vsphere'}", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = _first_line(process.stdout)
        if not line:
            raise RuntimeError(f"the stand-in did not start: {log.read_text(errors='replace')[-1000:]}")
        yield VSphere(**json.loads(line), process=process)
        if process.poll() is not None:
            raise RuntimeError(f"the stand-in ended: {log.read_text(errors='replace')[-3000:]}")
    finally:
        process.stdin.close()  # it ends by itself, and QEMU with it
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _first_line(stream: IO[bytes]) -> bytes:
    end = time.monotonic() + _START_SECONDS
    ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
    return stream.readline() if ready else b""
