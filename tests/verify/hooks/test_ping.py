"""ping: only what leads to the machine itself counts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from simulators.subject import FakeSubject

from pipeline.target import Endpoint
from pipeline.verify.hook import Attempt
from verify.hooks.looking import Look

HERE, NOBODY = "192.0.2.77", "192.0.2.78"
"""RFC 5737: addresses that nobody has."""
SHORT = Attempt("ping", 1, 1.0)
needs_ping = pytest.mark.skipif(which("ping") is None, reason="iputils-ping is not installed")


@pytest.fixture
def routed() -> Iterator[None]:
    """HERE is an address of this host, as a guest's on a bridge would be reached; nothing leads to NOBODY."""
    if os.geteuid() != 0 or which("ip") is None:
        pytest.skip("adding an address needs root and iproute2")
    done = subprocess.run(["ip", "address", "add", f"{HERE}/32", "dev", "lo"], capture_output=True, check=False)
    if done.returncode != 0 and b"exists" not in done.stderr:
        pytest.skip(f"no address can be added here: {done.stderr.decode()}")
    yield
    subprocess.run(["ip", "address", "del", f"{HERE}/32", "dev", "lo"], capture_output=True, check=False)


@pytest.mark.parametrize(
    "endpoint",
    [Endpoint("127.0.0.1", 40007), Endpoint("127.0.0.1", 7), Endpoint("::1", 7), Endpoint(HERE, 7, relayed=True)],
)
def test_translated_networks_are_not_applicable(subject: FakeSubject, look: Look, endpoint: Endpoint) -> None:
    subject.isolated, subject.endpoints = False, {7: endpoint}
    assert look("ping").status == "not applicable"


def test_isolated_networks_are_not_applicable_even_if_something_answers(subject: FakeSubject, look: Look) -> None:
    subject.endpoints = {7: Endpoint(HERE, 7)}
    assert look("ping").status == "not applicable"


def test_a_machine_without_a_known_address_fails_for_now(subject: FakeSubject, look: Look) -> None:
    subject.isolated = False
    outcome = look("ping")
    assert (outcome.status, outcome.final) == ("failed", False)


@needs_ping
@pytest.mark.usefixtures("routed")
@pytest.mark.xdist_group("loopback-address")
def test_a_machine_that_answers_passes_and_one_that_does_not_fails(subject: FakeSubject, look: Look) -> None:
    subject.isolated = False
    subject.endpoints = {7: Endpoint(HERE, 7)}
    outcome = look("ping", count=2)
    assert outcome.status == "passed"
    assert "2 received, 0% packet loss" in outcome.seen
    subject.endpoints = {7: Endpoint(NOBODY, 7)}
    outcome = look("ping", attempt=SHORT)
    assert outcome.status == "failed"
    assert f"{NOBODY} does not answer" in outcome.seen


def test_a_missing_client_is_named_with_its_remedy(
    subject: FakeSubject, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    subject.isolated, subject.endpoints = False, {7: Endpoint(HERE, 7)}
    outcome = look("ping")
    assert (outcome.status, outcome.final) == ("failed", True)
    assert "apt-get install iputils-ping" in outcome.seen
