"""A PostgreSQL server of a test's own, where one is installed; nothing of the system's is touched."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def programs() -> Path | None:
    """Where its programs are."""
    for found in (shutil.which("initdb"), *Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        if found and all((Path(found).resolve().parent / name).exists() for name in PROGRAMS):
            return Path(found).resolve().parent
    return None


class Postgres:
    """Listens on a socket in `root` alone."""

    def __init__(self, root: Path) -> None:
        found = programs()
        assert found is not None
        self.url = f"postgresql://failback@/postgres?host={root}"
        self._root, self._programs, self._user = root, found, dict[str, Any]()
        root.mkdir()
        if os.geteuid() == 0:  # the server refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(root, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
        self._call("initdb", "-D", "data", "-U", "failback", "-A", "trust", "-N", "-E", "UTF8")

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self._root} -c fsync=off"
        self._call("pg_ctl", "-D", "data", "-w", "-t", "120", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        environment = {"PATH": "/usr/bin:/bin"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._root, env=environment, **self._user)


@contextmanager
def run_postgres(root: Path) -> Iterator[Postgres]:
    server = Postgres(root)
    server.start()
    try:
        yield server
    finally:
        server.stop()
