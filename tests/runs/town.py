"""An estate of folders that comes home to the shed, by real processes of failback on one repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from plugin.install import install
from typer.testing import CliRunner

from pipeline.cli.main import app

COMMAND = (sys.executable, "-c", "from pipeline.cli.main import run; run()")
ESTATE = Path(__file__).parent / "estate.sh"
VERBS = (
    "observe", "before_read", "quiesce", "unquiesce", "stop", "prove_stopped", "lock", "unlock", "start", "retire"
)  # fmt: skip


class Town:
    """Folders of machines, a repository, a plan file, and the hosts (state folders) that work on them."""

    def __init__(self, root: Path, *machines: str, address: str = "", **changes: Any) -> None:
        self.root = root
        self.machines = machines or ("db",)
        self.address = address or str(root / "repository")
        self.key = root / "key"
        self.plugin = install(root / "plugin") if not (root / "plugin").exists() else root / "plugin"
        for name in self.machines:
            folder = root / "estate" / name
            folder.mkdir(parents=True)
            (folder / "disk").write_bytes(b"of " + name.encode() + bytes(1 << 18))
            (folder / "on").touch()
        self.plan = root / "plan.yaml"
        self.plan.write_text(yaml.safe_dump(self._plan() | changes))
        self.servers: list[subprocess.Popen[str]] = []

    def _plan(self) -> dict[str, Any]:
        def machine(name: str) -> dict[str, Any]:
            folder = str(self.root / "estate" / name)
            commands = {verb: ["sh", str(ESTATE), verb, folder] for verb in VERBS}
            hardware = {"memory": "64M", "cpus": 1, "nics": [{"network": "lan"}]}
            door = {"name": "door", "hook": "door", "settings": {"name": name}}
            source = {**commands, "hardware": hardware, "live": True, "environment": ["PATH"]}
            return {"source": source, "checks": [door]}

        return {
            "name": "town",
            "target": "shed",
            "mapping": {"networks": {"*": "garden"}},
            "source": {"kind": "command"},
            "machines": {name: machine(name) for name in self.machines},
            "groups": [{"name": "all", "waves": [[name] for name in self.machines]}],
            "approvals": {"cutover": False, "commit": True},
        }

    def environment(self, host: str = "host") -> dict[str, str]:
        """Hosts have a state folder each; the shed is one platform, which all reach."""
        state, shed = self.root / host, self.root / "shed"
        shed.mkdir(exist_ok=True)
        (state / "targets").mkdir(parents=True, exist_ok=True)
        if not (state / "targets" / "shed").exists():
            (state / "targets" / "shed").symlink_to(shed, target_is_directory=True)
        return os.environ | {
            "FAILBACK_STATE_DIR": str(state),
            "FAILBACK_REPOSITORY": self.address,
            "FAILBACK_KEY_FILE": str(self.key),
            "PYTHONPATH": str(self.plugin),
            "COLUMNS": "200",
        }

    def failback(self, *arguments: object, host: str = "host") -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment(host), capture_output=True, text=True, timeout=240, check=False
        )

    def result(self, *arguments: object, host: str = "host") -> tuple[int, dict[str, Any]]:
        """(exit code, the result object)."""
        done = self.failback(*arguments, "--json", host=host)
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return done.returncode, found

    def begin(self) -> str:
        assert self.failback("repository", "init").returncode == 0
        code, result = self.result("run", "start", self.plan, "--detach")
        assert code == 0, result
        return str(result["run"])

    def serve(self, *options: object, host: str = "host") -> subprocess.Popen[str]:
        log = open(self.root / f"serve-{len(self.servers)}.log", "w")  # noqa: SIM115 - the child's, as long as it lives
        command = [*COMMAND, "run", "serve", "--verbose", *map(str, options)]
        child = subprocess.Popen(
            command, env=self.environment(host), stdout=log, stderr=log, text=True, start_new_session=True
        )
        self.servers.append(child)
        return child

    def said(self, server: int) -> str:
        return (self.root / f"serve-{server}.log").read_text()

    def end(self) -> None:
        for child in self.servers:
            child.kill()
            child.wait()

    # -- the estate ------------------------------------------------------------------------------------------------

    def folder(self, machine: str) -> Path:
        return self.root / "estate" / machine

    def stops_at(self, machine: str, verb: str) -> None:
        """Its programs wait there; see `reached`."""
        (self.folder(machine) / "waiting").unlink(missing_ok=True)
        (self.folder(machine) / "wait").write_text(verb)

    def reached(self, machine: str) -> bool:
        return (self.folder(machine) / "waiting").exists()

    def takeover(self) -> dict[str, bool]:
        return {name: (self.folder(name) / "on").exists() for name in self.machines}

    def home(self) -> int:
        """Machines that run there."""
        return len([*(self.root / "shed").glob("*/on")])

    def entries(self, run: str, kind: str = "") -> list[dict[str, Any]]:
        return [entry for entry in self._shown(run)["journal"] if not kind or entry["kind"] == kind]

    def state(self, run: str) -> str:
        shown = self._shown(run)
        return str(shown["outcome"] or shown["state"])

    def _shown(self, run: str) -> dict[str, Any]:
        """In this process: it is looked at often."""
        command = ["run", "show", run, "--journal", "--json"]
        done = CliRunner().invoke(app, command, prog_name="failback", env=self.environment("looking on"))
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def until(what: Callable[[], object], *, seconds: float = 180.0, why: Callable[[], object] = lambda: "") -> float:
    """Wait for it; how long it took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, why()
        time.sleep(0.2)
    return time.monotonic() - began
