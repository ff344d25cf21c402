"""borg: a reference that stores on the same machine, without a server or encryption."""

from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import Command
from scripts.bench.peers.base import Peer


class Borg(Peer):
    name = "borg"
    over_s3 = False

    @classmethod
    def version(cls) -> str:
        return tool.version(tool.find("borg"), "--version")

    def prepare(self) -> list[Command]:
        return [self._command("init", "--encryption", "none", str(self._repository))]

    def full(self) -> Command:
        return self._command("create", f"{self._repository}::full", str(self.site.image))

    def incremental(self) -> Command:
        return self._command("create", f"{self._repository}::incremental", str(self.site.image))

    def restore(self, target: Path) -> Command:
        return self._command("extract", f"{self._repository}::incremental", directory=target)

    def stored(self) -> int:
        return sum(path.stat().st_size for path in self._repository.rglob("*") if path.is_file())

    @property
    def _repository(self) -> Path:
        return self.site.scratch / "repository"

    def _command(self, *arguments: str, directory: Path | None = None) -> Command:
        return Command([tool.find("borg"), *arguments], {"BORG_BASE_DIR": str(self.site.scratch)}, directory)
