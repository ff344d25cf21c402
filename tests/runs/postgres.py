"""A PostgreSQL server of a test's own, where one is installed; nothing of the system's is touched."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def programs() -> Path | None:
    """Where its programs are."""
    for found in (shutil.which("initdb"), *Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        if found and all((Path(found).resolve().parent / name).exists() for name in PROGRAMS):
            return Path(found).resolve().parent
    return None


@contextmanager
def run_postgres(root: Path) -> Iterator[str]:
    """Its address. It listens on a socket in `root` alone."""
    found = programs()
    assert found is not None
    root.mkdir()
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(root, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}

    def call(*arguments: str) -> None:
        subprocess.run(
            arguments, check=True, stdout=subprocess.DEVNULL, cwd=root, env={"PATH": "/usr/bin:/bin"}, **user
        )  # type: ignore[call-overload]

    data = str(root / "data")
    call(str(found / "initdb"), "-D", data, "-U", "failback", "-A", "trust", "-N", "-E", "UTF8")
    options = f"-c listen_addresses= -c unix_socket_directories={root} -c fsync=off"
    call(str(found / "pg_ctl"), "-D", data, "-w", "-t", "120", "-l", str(root / "log"), "-o", options, "start")
    try:
        yield f"postgresql://failback@/postgres?host={root}"
    finally:
        call(str(found / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
