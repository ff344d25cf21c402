"""qemu-img: a reference that writes one compressed file on the same machine, always whole."""

from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import Command
from scripts.bench.peers.base import Peer


class QemuImg(Peer):
    name = "qemu-img"
    over_s3 = False

    @classmethod
    def version(cls) -> str:
        return tool.version(tool.find("qemu-img"), "--version")

    def full(self) -> Command:
        image = ["-f", "raw", str(self.site.image)]
        return Command([tool.find("qemu-img"), "convert", "-c", "-O", "qcow2", *image, str(self._packed)])

    def restore(self, target: Path) -> Command:
        packed = ["-f", "qcow2", str(self._packed)]
        return Command([tool.find("qemu-img"), "convert", "-O", "raw", *packed, str(target / "disk.raw")])

    def stored(self) -> int:
        return self._packed.stat().st_size if self._packed.exists() else 0

    @property
    def _packed(self) -> Path:
        return self.site.scratch / "disk.qcow2"
