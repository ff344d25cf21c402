"""qemu-nbd started for one image, seen by nobody but us."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from pipeline.errors import UsageError
from pipeline.nbd.client import NbdClient
from pipeline.nbd.protocol import NbdLost, NbdRefused

_INSTALL = "Install the QEMU tools: apt-get install qemu-utils (Debian, Ubuntu), dnf install qemu-img (Fedora, RHEL)."

# LISTEN_PID must be the pid of qemu-nbd itself, which only the child knows; exec keeps it. The listening socket comes
# as standard input, because sh can be relied on to move descriptors 0-9 only.
_ACTIVATE = 'exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'


class ServerFailed(Exception):
    """qemu-nbd did not start or did not end well; the message is its own."""


class QemuNbd:
    """A qemu-nbd that lives exactly as long as its connections.

    It gets a listening socket by systemd's protocol (LISTEN_FDS), to which all our connections are already made, and
    whose name is removed before anybody else can use it. Without --persistent it ends with its last connection. So it
    is gone, with no file left behind, when we close it and likewise when we are killed: the kernel closes the
    connections.
    """

    def __init__(self, arguments: list[str], *, connections: int, timeout: float = 60.0) -> None:
        """`arguments` are those of qemu-nbd but for sharing and sockets. Raises ServerFailed, UsageError."""
        program = tool("qemu-nbd")
        self._links: list[socket.socket] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with _listening(connections, self._links) as listener:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _ACTIVATE, program, f"--shared={connections}", *arguments],
                    stdin=listener.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    start_new_session=True,  # Ctrl-C is ours to handle: it must still write what it holds
                )
            waiting = iter(list(self._links))
            self.client = NbdClient(lambda: next(waiting), "", connections=connections, timeout=timeout)
            self.client.open_all()
        except (OSError, NbdRefused, NbdLost, StopIteration) as error:
            self._hang_up()
            self._wait()
            message = self._message() or str(error)
            self._errors.close()
            raise ServerFailed(message) from error
        except BaseException:
            self._hang_up()
            self._wait()
            self._errors.close()
            raise

    def close(self) -> None:
        """Close the connections and wait until it has ended. Raises ServerFailed when it did not end well."""
        if self._process is None:
            return
        self.client.close()
        self._hang_up()
        status = self._wait()
        message = self._message()
        self._errors.close()
        self._process = None
        if status != 0:
            raise ServerFailed(message or f"qemu-nbd ended with status {status}")

    def _hang_up(self) -> None:
        for link in self._links:
            link.close()
        self._links.clear()

    def _wait(self) -> int:
        if self._process is None:
            return 0
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _message(self) -> str:
        self._errors.seek(0)
        return self._errors.read(4096).decode("utf-8", "replace").strip().removeprefix("qemu-nbd: ")


def tool(name: str) -> str:
    """Path of a QEMU tool; UsageError with what to install."""
    path = which(name)
    if path is None:
        raise UsageError(f"{name} is not installed; disk images other than raw need it", remedy=_INSTALL)
    return path


@contextlib.contextmanager
def _listening(connections: int, links: list[socket.socket]) -> Iterator[socket.socket]:
    """A listening socket with our connections waiting in it; its name is gone when this returns it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        folder = tempfile.mkdtemp(prefix="failback-nbd-")  # only we may enter it
        path = Path(folder, "s")
        try:
            listener.bind(os.fspath(path))
            listener.listen(connections)
            for _ in range(connections):
                link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                links.append(link)
                link.connect(os.fspath(path))
        finally:
            path.unlink(missing_ok=True)
            Path(folder).rmdir()
        yield listener
