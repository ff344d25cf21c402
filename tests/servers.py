"""Real S3 servers for tests: MinIO and versitygw, each a child process that dies with the test run."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ACCESS_KEY = "failback-test"
SECRET_KEY = "failback-test-secret"
REGION = "us-east-1"
BUCKET = "failback"

BUILD = Path(__file__).parents[1] / "scripts" / "tools" / "build"
START_SECONDS = 60.0
_ENVIRON = dict(os.environ)
"""As it was before tests isolate themselves: tools are cached in the real home."""
_PR_SET_PDEATHSIG = 1


class ToolMissing(Exception):
    """The tool is neither installed nor could it be built."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running S3 server with one empty bucket."""

    kind: str
    endpoint: str
    directory: Path
    """Where it keeps its objects."""
    process: subprocess.Popen[bytes]
    bucket: str = BUCKET
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    region: str = REGION

    def address(self, prefix: str = "") -> str:
        """A repository address below `prefix`, a fresh one when it is empty."""
        return f"s3://{self.bucket}/{prefix or secrets.token_hex(8)}?endpoint={self.endpoint}&region={self.region}"

    @property
    def environ(self) -> dict[str, str]:
        """What a child process needs in its environment to log in."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


def tool(name: str) -> str:
    """Path of a test tool, built when it has to be. Raises ToolMissing."""
    done = subprocess.run([str(BUILD), name], capture_output=True, text=True, check=False, env=_ENVIRON)
    if done.returncode != 0:
        raise ToolMissing(f"{name}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def run_minio(home: Path, *, objects: Path | None = None, bucket: bool = True) -> Iterator[Server]:
    """MinIO on one directory below `home`, or on the `objects` of one that ended, which has its `bucket` already."""
    objects = objects or home / "minio"
    home.mkdir(parents=True, exist_ok=True)
    objects.mkdir(exist_ok=True)
    binary = tool("minio")

    def command(port: int) -> list[str]:
        # --config-dir: without it MinIO writes below the user's home.
        return [binary, "server", "--quiet", "--config-dir", str(home / "config"), "--address", f"127.0.0.1:{port}",
                "--console-address", "127.0.0.1:0", str(objects)]  # fmt: skip

    environ = {
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CALLHOME_ENABLE": "off",
    }
    with _run("minio", command, environ, objects, "/minio/health/ready", home / "minio.log", bucket) as server:
        yield server


@contextmanager
def run_versitygw(home: Path) -> Iterator[Server]:
    """versitygw with its posix backend on one directory below `home`."""
    objects = home / "versitygw"
    objects.mkdir(parents=True)
    binary = tool("versitygw")

    def command(port: int) -> list[str]:
        return [binary, "--port", f"127.0.0.1:{port}", "--keep-alive", "--quiet", "--health", "/health",
                "posix", str(objects)]  # fmt: skip

    environ = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY, "VGW_REGION": REGION}
    with _run("versitygw", command, environ, objects, "/health", home / "versitygw.log") as server:
        yield server


@contextmanager
def _run(
    kind: str,
    command: Callable[[int], list[str]],
    environ: Mapping[str, str],
    objects: Path,
    health: str,
    log: Path,
    bucket: bool = True,
) -> Iterator[Server]:
    for attempt in range(3):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                command(port),
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(log.parent), **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )
        try:
            if not _becomes_healthy(process, port, health):
                # Somebody else took the port between our look and the server's.
                if attempt < 2 and process.poll() is not None:
                    continue
                raise RuntimeError(f"{kind} did not start: {log.read_text(errors='replace')[-1000:]}")
            server = Server(kind, f"http://127.0.0.1:{port}", objects, process)
            if bucket:
                make_bucket(server)
            yield server
            return
        finally:
            _stop(process)


def make_bucket(server: Server, name: str = BUCKET, **options: Any) -> None:
    """Create a bucket; `options` go to boto3's create_bucket (object lock, for example)."""
    s3_client(server).create_bucket(Bucket=name, **options)


def s3_client(server: Server) -> Any:
    """A boto3 client of the server, to look at it from outside."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )


def _becomes_healthy(process: subprocess.Popen[bytes], port: int, path: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Runs in the child before exec: even a test run that is killed leaves no server behind."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
