"""Real SSH servers on 127.0.0.1: OpenSSH's where it is installed, and AsyncSSH, which needs nothing of the system."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import getpass
import hashlib
import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import asyncssh
import pytest
from servers import free_port

from pipeline.target import Endpoint

KINDS = ("asyncssh", "openssh")
START_SECONDS = 20.0


@dataclass(frozen=True)
class SshServer:
    """`key` lets `user` in. `host_key` is the server's public key."""

    endpoint: Endpoint
    user: str
    key: Path
    host_key: str

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.host_key.split()[1])).digest()
        return f"ssh-ed25519 SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def key_pair(path: Path) -> str:
    """A new private key at `path`; the public one."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.touch(0o600)
    key.write_private_key(str(path))
    return " ".join(key.export_public_key().decode().split()[:2])


@contextlib.contextmanager
def run_ssh_server(kind: str, folder: Path) -> Iterator[SshServer]:
    """Skips the test where OpenSSH's server is not installed."""
    folder.mkdir()
    host_key, login = key_pair(folder / "host"), key_pair(folder / "login")
    (folder / "authorized").write_text(login + "\n")
    with _SERVERS[kind](folder) as endpoint:
        yield SshServer(endpoint, getpass.getuser(), folder / "login", host_key)


@contextlib.contextmanager
def _openssh(folder: Path) -> Iterator[Endpoint]:
    sshd = which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if sshd is None:
        pytest.skip("openssh-server is not installed")
    if os.geteuid() == 0:
        # sshd(8): it separates privileges, as this user, in this empty folder.
        try:
            pwd.getpwnam("sshd")
        except KeyError:
            pytest.skip("there is no user sshd")
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stderr=output)
    try:
        _wait_for(port, process, log)
        yield Endpoint("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    waited = threading.Event()
    for _ in range(int(START_SECONDS / 0.05)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        waited.wait(0.05)
    raise RuntimeError(f"sshd did not start: {log.read_text(errors='replace')}")


@contextlib.contextmanager
def _asyncssh(folder: Path) -> Iterator[Endpoint]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def run_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
        child = await asyncio.create_subprocess_shell(
            process.command or "", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, error = await child.communicate()
        process.stdout.write(output)
        process.stderr.write(error)
        process.exit(child.returncode or 0)

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[str(folder / "host")], encoding=None,
            authorized_client_keys=str(folder / "authorized"), process_factory=run_command,
        )  # fmt: skip

    async def stop(server: asyncssh.SSHAcceptor) -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(START_SECONDS)
    try:
        yield Endpoint("127.0.0.1", server.get_port())
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


_SERVERS = {"openssh": _openssh, "asyncssh": _asyncssh}
