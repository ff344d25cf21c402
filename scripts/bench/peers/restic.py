"""restic: default settings, quiet."""

import shutil
from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import Command
from scripts.bench.peers.base import Peer
from scripts.bench.server import CREDENTIALS, DIRECT


class Restic(Peer):
    name = "restic"
    restore_options: tuple[str, ...] = ()

    @classmethod
    def version(cls) -> str:
        return tool.version(tool.find("restic"), "version")

    def prepare(self) -> list[Command]:
        return [self._command("init")]

    def full(self) -> Command:
        return self._command("backup", str(self.site.image))

    def move(self) -> list[Command]:
        shutil.rmtree(self._cache, ignore_errors=True)
        return []

    def restore(self, target: Path) -> Command:
        return self._command("restore", "latest", "--target", str(target), *self.restore_options)

    @property
    def _cache(self) -> Path:
        return self.site.scratch / "cache"

    def _command(self, *arguments: str) -> Command:
        environment = {
            **CREDENTIALS,
            **DIRECT,
            "RESTIC_REPOSITORY": f"s3:{self.site.endpoint}/{self.site.bucket}/disks",
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self._cache),
        }
        return Command([tool.find("restic"), "--quiet", *arguments], environment)


class ResticSparse(Restic):
    """Restores holes as holes, which is not restic's default."""

    name = "restic-sparse"
    restore_options = ("--sparse",)
