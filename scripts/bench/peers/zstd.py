"""zstd: a reference that compresses to nowhere with every core: what reading and compressing alone costs."""

from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import Command
from scripts.bench.peers.base import Peer


class Zstd(Peer):
    name = "zstd"
    over_s3 = False
    steps = frozenset({"full"})

    @classmethod
    def version(cls) -> str:
        return tool.version(tool.find("zstd"), "--version")

    def full(self) -> Command:
        script = 'exec "$0" -1 -T0 -q -c "$1" >/dev/null'
        return Command(["sh", "-c", script, tool.find("zstd"), str(self.site.image)])

    def restore(self, target: Path) -> Command:
        raise NotImplementedError("zstd stores nothing here")
