"""kopia: default settings but for compression.

kopia does not compress unless told to; a peer that stores twice the bytes would look fast in one column and bad in
another. It gets zstd-fastest, the cheapest of its zstd levels and the nearest to what the others do.
"""

import shutil
from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import Command
from scripts.bench.peers.base import Peer
from scripts.bench.server import DIRECT, KEY, SECRET

COMPRESSION = "zstd-fastest"


class Kopia(Peer):
    name = "kopia"
    restore_options: tuple[str, ...] = ()

    @classmethod
    def version(cls) -> str:
        return f"kopia {tool.version(tool.find('kopia'), '--version')}, {COMPRESSION}"

    def prepare(self) -> list[Command]:
        return [
            self._repository("create"),
            self._command("policy", "set", "--global", f"--compression={COMPRESSION}"),
        ]

    def full(self) -> Command:
        return self._command("snapshot", "create", str(self.site.image.parent))

    def move(self) -> list[Command]:
        shutil.rmtree(self._home, ignore_errors=True)
        return [self._repository("connect")]

    def restore(self, target: Path) -> Command:
        # The directory is what was stored; kopia finds its last snapshot by that name.
        return self._command("snapshot", "restore", str(self.site.image.parent), str(target), *self.restore_options)

    @property
    def _home(self) -> Path:
        return self.site.scratch / "kopia"

    def _repository(self, verb: str) -> Command:
        host = self.site.endpoint.removeprefix("http://")
        place = ["--bucket", self.site.bucket, "--prefix", "disks/", "--endpoint", host, "--disable-tls"]
        login = ["--access-key", KEY, "--secret-access-key", SECRET]
        return self._command("repository", verb, "s3", *place, *login)

    def _command(self, *arguments: str) -> Command:
        environment = {
            **DIRECT,
            "KOPIA_PASSWORD": "benchmark",
            "KOPIA_CONFIG_PATH": str(self._home / "repository.config"),
            "KOPIA_CACHE_DIRECTORY": str(self._home / "cache"),
            "KOPIA_LOG_DIR": str(self._home / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        return Command([tool.find("kopia"), "--no-progress", *arguments], environment)


class KopiaSparse(Kopia):
    """Restores holes as holes, which is not kopia's default."""

    name = "kopia-sparse"
    restore_options = ("--write-sparse-files",)
