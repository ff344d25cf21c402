"""Server: a MinIO of our own, and what it did in a step."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import tail

BUCKET = "bench"
KEY, SECRET = "benchmark", "benchmark-secret"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
DIRECT = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
READY_WITHIN = 60.0
"""Seconds for the server to answer."""
METRICS_PATH = "/minio/metrics/v3/api/requests"
"""Version 3: the numbers of /minio/v2/metrics/cluster are up to ten seconds old."""
COUNTER = re.compile(r'^minio_api_requests_total\{.*?name="(\w+)".*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Reading:
    """What a server has done since it started: CPU seconds, requests by method; what it holds: bytes and objects."""

    cpu: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    objects: int = 0

    def __sub__(self, before: "Reading") -> "Reading":
        requests = Counter({name: self.requests[name] - before.requests[name] for name in self.requests})
        return Reading(self.cpu - before.cpu, +requests, self.stored - before.stored, self.objects - before.objects)


def cpu_seconds(process: int) -> float:
    """User and system time of a process up to now, in the kernel's steps of (mostly) 10 ms."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Minio:
    """A server with one empty bucket, its data in a directory that is removed at the end."""

    def __init__(self, data: Path, *, environment: dict[str, str] | None = None) -> None:
        self._data = data
        self._environment = environment or {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> int:
        """Number of the server's process."""
        return self._process.pid

    @property
    def objects(self) -> Path:
        """Where the bucket's objects are: each a directory."""
        return self._data / BUCKET

    def __enter__(self) -> "Minio":
        (self._data / BUCKET).mkdir(parents=True)
        log = self._data.with_suffix(".log")
        # A killed benchmark must not leave a server behind.
        leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [*leash, tool.find("minio"), "server", "--quiet", "--address", f"127.0.0.1:{self.port}", self._data],
                env={
                    **os.environ,
                    "MINIO_ROOT_USER": KEY,
                    "MINIO_ROOT_PASSWORD": SECRET,
                    "MINIO_PROMETHEUS_AUTH_TYPE": "public",
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                    **self._environment,
                },
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt from the terminal is for the benchmark, which stops the server
            )
        try:
            self._wait(log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._data, ignore_errors=True)

    def reading(self) -> Reading:
        """CPU time, requests and stored bytes up to now."""
        sizes = list(self.sizes().values())
        return Reading(cpu_seconds(self.process), self._requests(), sum(sizes), len(sizes))

    def sizes(self) -> dict[str, int]:
        """Stored bytes of every object by key, the server's own headers and check sums included."""
        bucket, sizes = self._data / BUCKET, Counter[str]()
        for directory, _, names in os.walk(bucket):
            place = Path(directory)
            # An object is a directory with xl.meta, and one more directory with its parts unless they are inline.
            key = place if "xl.meta" in names else place.parent
            for name in names:
                sizes[str(key.relative_to(bucket))] += (place / name).stat().st_size
        return dict(sizes)

    def _wait(self, log: Path) -> None:
        limit = time.monotonic() + READY_WITHIN
        while time.monotonic() < limit:
            with contextlib.suppress(OSError):
                if self._get("/minio/health/ready")[0] == 200:
                    return
            if self._process.poll() is not None:
                raise RuntimeError(f"MinIO ended at once: {tail(log)}")
            time.sleep(0.1)
        raise RuntimeError(f"MinIO did not answer within {READY_WITHIN:.0f} s: {tail(log)}")

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _requests(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, value in COUNTER.findall(self._get(METRICS_PATH)[1]):
            counts[name] += round(float(value))
        return counts
