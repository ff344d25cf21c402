"""`exec`: any program decides.

It gets one JSON document on standard input:

    {"version": 1, "check": "orders", "attempt": 2, "seconds": 30.0,
     "machine": {"name": "db-1", "firmware": "bios", "cpus": 2, "memory_bytes": 4294967296, "nics": [...], ...},
     "hostname": "db-1", "addresses": ["10.0.2.15"], "isolated": true,
     "networks": [{"name": null, "mac": "52:54:00:...", ...}],
     "endpoints": {"5432": {"host": "127.0.0.1", "port": 40123, "relayed": true}},
     "artifacts": "/var/lib/failback/.../orders"}

`machine` is the hardware description of the recovery point (manifests.machine.Machine) without the source platform's
own. `endpoints` has the ports that the check asked for: each where the guest's port is reached from here; `null` when
it is not reached (yet). `relayed`: connections are taken in the guest's stead, so only an answer proves anything.
`artifacts` is an empty folder; files that are in it afterwards belong to the result.

Exit code 0: passed; 77: not applicable (the convention of automake's tests for "skipped"); any other: failed, and tried
again as the check says. What was seen is the last line of standard output (of standard error when there is none), or
the text `seen` of a JSON object printed there as the last line. `seconds` after its start it is killed with its whole
process group. It gets the variables PATH, HOME, the locale's and few more, and those that the check names: no
credentials of the store.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from blake3 import blake3
from pydantic import Field, field_validator

from manifests.machine import Model
from pipeline.target import Endpoint
from pipeline.verify.hook import Attempt, Hook, Outcome
from pipeline.verify.hooks.text import SHOWN, decoded, plain
from pipeline.verify.process import environment, run, without
from pipeline.verify.short import port_number
from pipeline.verify.subject import Subject, safe_name

VERSION = 1
PASSED = 0
NOT_APPLICABLE = 77
_STATUS: dict[int | None, Literal["passed", "not applicable"]] = {PASSED: "passed", NOT_APPLICABLE: "not applicable"}
SEEN = 5 * SHOWN
"""Characters of what it says that a result repeats."""
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"

Port = Annotated[int, Field(ge=1, le=65535)]


class ExecSettings(Model):
    path: str = Field(min_length=1)
    """The program; without a slash it is looked for in PATH."""
    arguments: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    """TCP ports of the guest that it needs."""
    environment: tuple[Annotated[str, Field(pattern=_VARIABLE)], ...] = ()
    """Names of variables that it gets besides; their values are taken out of what it says."""

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if shutil.which(value) is None:
            raise ValueError(f"{value} is not an executable file")
        return str(Path(value).absolute()) if "/" in value else value


class ExecHook(Hook[ExecSettings]):
    Settings = ExecSettings
    form = "exec:[PORT[,PORT]@]PATH [ARGUMENT ...], for example exec:5432@scripts/hooks/postgresql.py"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        before, sign, after = rest.partition("@")
        ports: list[int] = []
        if sign and all(part.isdigit() for part in before.split(",")):
            ports, rest = [port_number(part) for part in before.split(",")], after
        words = shlex.split(rest)
        if not words:
            raise ValueError("the path is missing")
        return {"path": words[0], "arguments": words[1:], "ports": ports}

    def ports(self) -> tuple[int, ...]:
        return self.settings.ports

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        settings = self.settings
        folder = subject.artifacts / own_name(attempt.check)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            ran = run(
                [settings.path, *settings.arguments],
                seconds=attempt.seconds,
                cancelled=attempt.cancelled,
                stdin=json.dumps(document(subject, attempt, settings.ports, folder)).encode(),
                environ=environment(settings.environment),
            )
        except OSError as error:
            return Outcome("failed", f"{settings.path} cannot be run: {error}", final=True)
        secrets = [os.environ[name] for name in settings.environment]
        said = without(_said(decoded(ran.output)) or _said(decoded(ran.error)), secrets)
        status: Literal["passed", "failed", "not applicable"] = _STATUS.get(ran.exit_code, "failed")
        if ran.exit_code is None:
            seen = f"killed after {attempt.seconds:.0f} s" + (f": {said}" if said else "")
        elif status == "failed":
            seen = f"exit code {ran.exit_code}" + (f": {said}" if said else "")
        else:
            seen = said or f"exit code {ran.exit_code}"
        kept = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(status, seen, kept, final=status == "not applicable")


def own_name(check: str) -> str:
    """Of the folder of a check. Two checks whose names differ in what a file name must not have do not share one."""
    name = safe_name(check)
    return name if name == check else f"{name}-{blake3(check.encode()).hexdigest(4)}"


def document(subject: Subject, attempt: Attempt, ports: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """What the program gets; see the module's docstring."""
    observation = subject.observe()
    return {
        "version": VERSION,
        "check": attempt.check,
        "attempt": attempt.number,
        "seconds": round(attempt.seconds, 3),
        "machine": subject.machine.model_dump(mode="json", exclude={"raw"}),
        "hostname": observation.hostname,
        "addresses": list(observation.addresses),
        "isolated": subject.isolated,
        "networks": [network.model_dump(mode="json") for network in subject.networks],
        "endpoints": {str(port): _endpoint(subject.reach(port)) for port in ports},
        "artifacts": str(folder.absolute()),
    }


def _endpoint(endpoint: Endpoint | None) -> dict[str, Any] | None:
    if endpoint is None:
        return None
    return {"host": endpoint.host, "port": endpoint.port, "relayed": endpoint.relayed}


def _said(text: str) -> str:
    """The last line, or the `seen` of the object that it is."""
    lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if last.startswith("{"):
        try:
            found = json.loads(last)
        except ValueError:
            return last[-SEEN:]
        if isinstance(found, dict) and isinstance(found.get("seen"), str):
            last = found["seen"]
    return last[-SEEN:]
