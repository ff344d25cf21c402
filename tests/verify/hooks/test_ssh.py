"""ssh: commands by key alone, on the machine whose host key is known, or recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from simulators.services import closes, listening, refusing_port, silent
from simulators.ssh_servers import KINDS, SshServer, key_pair, run_ssh_server
from simulators.subject import FakeSubject

from pipeline.verify.checks import hook_of
from pipeline.verify.hook import Attempt
from pipeline.verify.short import parse_hook
from verify.hooks.looking import Look

pytestmark = pytest.mark.skipif(which("ssh") is None, reason="openssh-client is not installed")


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path, subject: FakeSubject) -> Iterator[SshServer]:
    with run_ssh_server(request.param, tmp_path / "ssh") as running:
        subject.endpoints[22] = running.endpoint
        yield running


def test_a_command_runs_on_the_machine_with_the_known_host_key(server: SshServer, look: Look) -> None:
    outcome = look(
        "ssh", user=server.user, key=str(server.key), host_key=server.host_key, command="echo up; exit 3",
        output="up", exit_code=3,
    )  # fmt: skip
    assert (outcome.status, outcome.seen) == (
        "passed",
        "exit code 3, output 'up'; the host key is the one expected",
    )


def test_the_host_key_may_be_in_a_file(server: SshServer, look: Look, tmp_path: Path) -> None:
    path = tmp_path / "host.pub"
    path.write_text(f"{server.host_key} root@web-1\n")
    outcome = look("ssh", user=server.user, key=str(server.key), host_key=str(path), command="true")
    assert outcome.status == "passed"


def test_another_host_key_is_refused_before_anything_runs(server: SshServer, look: Look, tmp_path: Path) -> None:
    other, ran = key_pair(tmp_path / "other"), tmp_path / "ran"
    outcome = look("ssh", user=server.user, key=str(server.key), host_key=other, command=f"touch {ran}")
    assert outcome.status == "failed"
    assert "Host key verification failed" in outcome.seen
    assert not ran.exists()


def test_an_unknown_host_key_is_accepted_only_when_asked_and_then_recorded(server: SshServer, look: Look) -> None:
    outcome = look("ssh", user=server.user, key=str(server.key), accept_new=True, command="true")
    assert outcome.status == "passed"
    assert outcome.seen.endswith(f"host key accepted unseen: {server.fingerprint}")


def test_the_short_form_runs_a_command(server: SshServer, look: Look) -> None:
    good = look(hook_of(parse_hook(f"ssh:{server.user}@22,key={server.key}:'A=1; echo $A'=1")))
    bad = look(hook_of(parse_hook(f"ssh:{server.user}@22,key={server.key}:echo inactive; exit 3=active")))
    assert (good.status, bad.status) == ("passed", "failed")
    assert bad.seen.startswith("exit code 3, output 'inactive' (expected exit code 0)")


def test_a_key_that_is_not_let_in_fails_without_asking_for_a_password(
    server: SshServer, look: Look, tmp_path: Path
) -> None:
    key_pair(tmp_path / "stranger")
    outcome = look("ssh", user=server.user, key=str(tmp_path / "stranger"), accept_new=True, command="true")
    assert outcome.status == "failed"
    assert "Permission denied" in outcome.seen


def test_a_command_that_hangs_is_ended(server: SshServer, look: Look) -> None:
    outcome = look(
        "ssh", user=server.user, key=str(server.key), accept_new=True, command="exec sleep 30",
        attempt=Attempt("shell", 1, 3.0),
    )  # fmt: skip
    assert (outcome.status, outcome.seen.endswith("not through within 3 s")) == ("failed", True)


@pytest.mark.parametrize(
    ("talk", "expected"), [(closes, "kex_exchange_identification"), (silent, "timed out"), (None, "Connection refused")]
)
def test_what_is_no_ssh_server_is_named(subject: FakeSubject, look: Look, talk: object, expected: str) -> None:
    attempt = Attempt("shell", 1, 2.5)
    if talk is None:
        subject.endpoints[22] = refusing_port()
        outcome = look("ssh", user="u", accept_new=True, command="true", attempt=attempt)
    else:
        with listening(talk) as endpoint:  # type: ignore[arg-type]
            subject.endpoints[22] = endpoint
            outcome = look("ssh", user="u", accept_new=True, command="true", attempt=attempt)
    assert outcome.status == "failed"
    assert expected in outcome.seen


def test_a_command_that_looks_like_options_is_no_option(server: SshServer, look: Look, tmp_path: Path) -> None:
    outcome = look(
        "ssh", user=server.user, key=str(server.key), accept_new=True, command=f"-oProxyCommand='touch {tmp_path}/x'"
    )
    assert outcome.status == "failed"
    assert not (tmp_path / "x").exists()
