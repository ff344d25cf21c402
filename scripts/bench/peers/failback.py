"""failback: this program, with its default settings."""

import shutil
import sys
from pathlib import Path

from scripts.bench import tool
from scripts.bench.measure import Command
from scripts.bench.peers.base import Peer
from scripts.bench.server import CREDENTIALS, DIRECT

MACHINE = "bench"


class Failback(Peer):
    name = "failback"

    @classmethod
    def version(cls) -> str:
        commit = tool.version("git", "-C", str(tool.ROOT), "describe", "--always", "--dirty")
        return f"{commit} ({' '.join(tool.failback()[:1])})"

    def prepare(self) -> list[Command]:
        return [self._command("repository", "init")]

    def full(self) -> Command:
        return self._command("export", MACHINE, "--disk", str(self.site.image), "--quiet")

    def incremental(self, changes: Path | None = None) -> Command:
        """With a change list the disk is not read elsewhere."""
        extra = ["--changes", str(changes), "--changes-since", "latest"] if changes else []
        return self._command("export", MACHINE, "--disk", str(self.site.image), "--quiet", *extra)

    def move(self) -> list[Command]:
        shutil.rmtree(self._state, ignore_errors=True)
        return []

    def restore(self, target: Path) -> Command:
        return self._command("import", MACHINE, "--to", "files", "--out", str(target), "--quiet")

    def upload(self, port: int, certificate: Path, *, level: int) -> Command:
        """Send the disk as a VMDK stream to a sink on this machine."""
        program = [sys.executable, "-m", "scripts.bench.upload", MACHINE, str(port), str(certificate)]
        return Command([*program, "--level", str(level)], self.environment, tool.ROOT)

    @property
    def _key(self) -> str:
        return str(self.site.scratch / "key")

    @property
    def _state(self) -> Path:
        return self.site.scratch / "state"

    def _command(self, *arguments: str) -> Command:
        return Command([*tool.failback(), *arguments], self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Settings of every command."""
        url = f"s3://{self.site.bucket}/disks?endpoint={self.site.endpoint}"
        return {
            **CREDENTIALS,
            **DIRECT,
            "FAILBACK_REPOSITORY": url,
            "FAILBACK_STATE_DIR": str(self._state),
            "FAILBACK_KEY_FILE": self._key,
        }


class FailbackPlain(Failback):
    """The same without encryption: what that costs."""

    name = "failback-plain"

    def prepare(self) -> list[Command]:
        return [self._command("repository", "init", "--no-encryption")]

    @property
    def _key(self) -> str:
        return ""
