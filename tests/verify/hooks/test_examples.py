"""The example hooks in scripts/hooks, each against a real server."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which

import pytest
from servers import free_port
from simulators.services import closes, listening, refusing_port, says
from simulators.subject import FakeSubject

from pipeline.target import Endpoint
from pipeline.verify.hook import Attempt, Outcome
from verify.hooks.looking import Look

HOOKS = Path(__file__).parents[3] / "scripts" / "hooks"
START_SECONDS = 60.0
PASSWORD = "of-the-report"


@contextlib.contextmanager
def running(command: Sequence[str | Path], port: int, user: str | None = None) -> Iterator[Endpoint]:
    """A server that listens on `port` once this is entered."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user)
        try:
            pause = threading.Event()
            for _ in range(int(START_SECONDS / 0.05)):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {log.read().decode(errors='replace')[-2000:]}")
                pause.wait(0.05)
            yield Endpoint("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait(60)


def checked(*command: str | Path, user: str | None = None, text: str = "") -> None:
    done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=120, check=False, user=user)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Endpoint]:
    """PostgreSQL with a table; user report has PASSWORD."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("postgresql is not installed")
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    binaries, home = found[-1].parent, Path(tempfile.mkdtemp(prefix="failback-pg-"))
    try:
        if user is not None:
            shutil.chown(home, user)
        password = home / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        checked(
            binaries / "initdb", "-D", home / "data", "-U", "report", "-A", "scram-sha-256", f"--pwfile={password}",
            "--no-sync", "--no-locale", user=user,
        )  # fmt: skip
        checked(
            binaries / "postgres", "--single", "-D", home / "data", "postgres", user=user,
            text="create table orders (id int)\ninsert into orders values (1), (2), (3)\n",
        )  # fmt: skip
        port = free_port()
        options = ["-p", str(port), "-k", str(home), "-c", "listen_addresses=127.0.0.1", "-F"]
        with running([binaries / "postgres", "-D", home / "data", *options], port, user) as endpoint:
            yield endpoint
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """MariaDB with a table; user report has PASSWORD."""
    server, install = which("mariadbd", path="/usr/sbin:/usr/bin"), which("mariadb-install-db")
    if server is None or install is None:
        pytest.skip("mariadb-server-core is not installed")
    home = tmp_path_factory.mktemp("mariadb")
    # Temporary tables of two servers in one folder have the same names.
    user = [f"--user={getpass.getuser()}", f"--tmpdir={home}"]
    checked(install, "--no-defaults", f"--datadir={home}/data", "--skip-test-db", "--skip-name-resolve", *user)
    setup = home / "setup.sql"
    setup.write_text(
        "create database shop;\ncreate table shop.orders (id int);\ninsert into shop.orders values (1), (2), (3);\n"
        f"create user report@'%' identified by '{PASSWORD}';\ngrant select on shop.* to report@'%';\n"
    )
    port = free_port()
    options = [
        "--no-defaults", f"--datadir={home}/data", f"--socket={home}/socket", f"--port={port}", *user,
        "--bind-address=127.0.0.1", "--skip-name-resolve", f"--init-file={setup}", "--innodb-buffer-pool-size=8M",
        f"--pid-file={home}/pid",
    ]  # fmt: skip
    with running([server, *options], port) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def dnsmasq() -> Iterator[Endpoint]:
    """dnsmasq that knows a few names and nobody else to ask."""
    server = which("dnsmasq", path="/usr/sbin:/usr/bin")
    if server is None:
        pytest.skip("dnsmasq-base is not installed")
    port = free_port()
    options = [
        "--keep-in-foreground", "--log-facility=-", f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces",
        "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file", f"--user={getpass.getuser()}",
        "--host-record=shop.example,192.0.2.7,2001:db8::7", "--cname=www.shop.example,shop.example",
        "--txt-record=shop.example,sells things", "--mx-host=shop.example,mail.shop.example,10",
    ]  # fmt: skip
    with running([server, *options], port) as endpoint:
        yield endpoint


def ask(
    look: Look, subject: FakeSubject, name: str, port: int, endpoint: Endpoint | None, *arguments: str, **more: object
) -> Outcome:
    """One attempt of an example, with the `port` of the guest at `endpoint`."""
    subject.endpoints = {} if endpoint is None else {port: endpoint}
    attempt = Attempt("example", 1, 30.0)
    path = str(HOOKS / f"{name}.py")
    return look("exec", path=path, ports=[port], arguments=list(arguments), attempt=attempt, **more)


def test_postgresql_is_seen_to_ask_for_a_password(look: Look, subject: FakeSubject, postgresql: Endpoint) -> None:
    outcome = ask(look, subject, "postgresql", 5432, postgresql, "--user", "report")
    assert (outcome.status, outcome.seen) == (
        "passed",
        "PostgreSQL asks for a password (SCRAM) for user report",
    )


@pytest.mark.skipif(which("psql") is None, reason="postgresql-client is not installed")
def test_postgresql_answers_a_query_of_a_user_with_a_password(
    look: Look, subject: FakeSubject, postgresql: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = ("--user", "report", "--query", "select count(*) from orders")
    refused = ask(look, subject, "postgresql", 5432, postgresql, *query)
    assert refused.status == "failed"
    assert "no password supplied" in refused.seen
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    right = ask(look, subject, "postgresql", 5432, postgresql, *query, "--expect", "3", environment=["PGPASSWORD"])
    wrong = ask(look, subject, "postgresql", 5432, postgresql, *query, "--expect", "4", environment=["PGPASSWORD"])
    assert (right.status, right.seen) == ("passed", "the query gives '3'")
    assert (wrong.status, wrong.seen) == ("failed", "exit code 1: the query gives '3' instead of '4'")


def test_mysql_is_seen_to_refuse_a_stranger(look: Look, subject: FakeSubject, mariadb: Endpoint) -> None:
    for _ in range(3):
        outcome = ask(look, subject, "mysql", 3306, mariadb)
        assert outcome.status == "passed"
        assert re.match(r"MySQL 1\d\.", outcome.seen)
        assert "-MariaDB-" in outcome.seen
        assert "is up and says: Access denied for user 'failback'" in outcome.seen


@pytest.mark.skipif(which("mariadb") is None, reason="mariadb-client-core is not installed")
def test_mysql_answers_a_query_of_a_user_with_a_password(
    look: Look, subject: FakeSubject, mariadb: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = ("--user", "report", "--query", "select count(*) from shop.orders")
    refused = ask(look, subject, "mysql", 3306, mariadb, *query)
    assert (refused.status, "Access denied" in refused.seen) == ("failed", True)
    monkeypatch.setenv("MYSQL_PWD", PASSWORD)
    right = ask(look, subject, "mysql", 3306, mariadb, *query, "--expect", "3", environment=["MYSQL_PWD"])
    assert (right.status, right.seen) == ("passed", "the query gives '3'")


@pytest.mark.parametrize(
    ("arguments", "status", "seen"),
    [
        (("--name", "shop.example", "--expect", "192.0.2.7"), "passed", "shop.example is A 192.0.2.7"),
        (("--name", "shop.example", "--type", "AAAA"), "passed", "shop.example is AAAA 2001:db8::7"),
        (
            ("--name", "www.shop.example", "--expect", "192.0.2.7"),
            "passed",
            "www.shop.example is CNAME shop.example, A 192.0.2.7",
        ),
        (("--name", "shop.example", "--type", "MX"), "passed", "shop.example is MX mail.shop.example"),
        (("--name", "shop.example", "--type", "TXT"), "passed", "shop.example is TXT sells things"),
        (
            ("--name", "shop.example", "--expect", "192.0.2.8"),
            "failed",
            "exit code 1: shop.example is A 192.0.2.7 instead of 192.0.2.8",
        ),
        (("--name", "other.example"), "failed", "exit code 1: other.example: refused"),
    ],
)
def test_dns_answers_are_compared(
    look: Look, subject: FakeSubject, dnsmasq: Endpoint, arguments: tuple[str, ...], status: str, seen: str
) -> None:
    outcome = ask(look, subject, "dns", 53, dnsmasq, *arguments)
    assert (outcome.status, outcome.seen) == (status, seen)


EXAMPLES = [("postgresql", 5432, ()), ("mysql", 3306, ()), ("dns", 53, ("--name", "a.example"))]


@pytest.mark.parametrize(("name", "port", "arguments"), EXAMPLES)
def test_examples_say_what_is_wrong(
    look: Look, subject: FakeSubject, name: str, port: int, arguments: tuple[str, ...]
) -> None:
    outcome = ask(look, subject, name, port, refusing_port(), *arguments)
    assert (outcome.status, "Connection refused" in outcome.seen) == ("failed", True)
    outcome = ask(look, subject, name, port, None, *arguments)
    assert (outcome.status, outcome.seen) == ("failed", f"exit code 1: no way to port {port}")
    for talk in (closes, says(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)):
        with listening(talk) as endpoint:
            outcome = ask(look, subject, name, port, endpoint, *arguments)
        assert outcome.status == "failed"
        assert "Traceback" not in outcome.seen
    outcome = look("exec", path=str(HOOKS / f"{name}.py"), arguments=list(arguments))
    assert f"port {port} is not asked for" in outcome.seen
