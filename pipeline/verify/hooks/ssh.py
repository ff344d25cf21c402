"""`ssh`: a command over SSH, by the system's client, without a person."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.target import Endpoint
from pipeline.verify.hook import Attempt, Hook, Outcome, failed
from pipeline.verify.hooks.answer import Expected, judged
from pipeline.verify.hooks.endpoint import at, endpoint_of
from pipeline.verify.hooks.text import decoded, last_lines
from pipeline.verify.process import environment, run
from pipeline.verify.short import port_number, split_expected
from pipeline.verify.subject import Subject

ALIAS = "failback-checked-machine"
"""Under which the host key is looked up: the address is that of a forwarder."""
AGENT = ("SSH_AUTH_SOCK",)
KEY_TYPES = ("ssh-", "ecdsa-", "sk-")
SSH_FAILED = 255
"""ssh(1), exit status: an error of its own (or the command's own 255)."""


class SshSettings(Expected):
    user: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._@\\-]*$")
    port: int = Field(default=22, ge=1, le=65535)
    command: str = Field(min_length=1)
    """As the user's shell there reads it."""
    key: Path | None = None
    """File of the private key. None: the client's usual ones, and the agent's."""
    host_key: str = ""
    """The machine's public key (`ssh-ed25519 AAAA...`), or a file with it; another one is refused."""
    accept_new: bool = False
    """Take whatever host key is shown, and record its fingerprint in the result."""

    @field_validator("host_key")
    @classmethod
    def _host_key(cls, value: str) -> str:
        if not value:
            return value
        if not value.startswith(KEY_TYPES):
            try:
                value = Path(value).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{value} is neither a public key nor a file with one: {error}") from None
        lines = [line for line in value.splitlines() if line.strip() and not line.startswith("#")]
        if not lines or not all(line.startswith(KEY_TYPES) and len(line.split()) >= 2 for line in lines):
            raise ValueError("it holds no public key such as `ssh-ed25519 AAAA...`")
        return "\n".join(" ".join(line.split()[:2]) for line in lines)

    @model_validator(mode="after")
    def _consistent(self) -> SshSettings:
        if bool(self.host_key) == self.accept_new:
            raise ValueError("give either `host_key`, the machine's public key, or `accept_new: true`")
        if self.key is not None and not self.key.is_file():
            raise ValueError(f"key: {self.key} is not a file")
        return self


class SshHook(Hook[SshSettings]):
    """No password is ever asked for or given. The user's and the host's configuration files of ssh are not read."""

    Settings = SshSettings
    form = (
        "ssh:USER@PORT[,key=FILE][,host_key=FILE]:COMMAND[=OUTPUT] (without host_key any is accepted and recorded), "
        "for example ssh:admin@22:'systemctl is-active nginx'=active"
    )

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        where, sign, command = rest.partition(":")
        if not sign:
            raise ValueError("the command is missing")
        login, *options = where.split(",")
        user, sign, port = login.rpartition("@")
        if not sign:
            raise ValueError(f"{login!r} is not USER@PORT")
        found: dict[str, Any] = {"user": user, "port": port_number(port)}
        for option in options:
            name, _, value = option.partition("=")
            if name not in ("key", "host_key") or not value or name in found:
                raise ValueError(f"{option!r} is not key=FILE or host_key=FILE, or comes twice")
            found[name] = value
        found["accept_new"] = "host_key" not in found
        found["command"], output = split_expected(command)
        return found if output is None else found | {"output": output}

    def ports(self) -> tuple[int, ...]:
        return (self.settings.port,)

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        endpoint = endpoint_of(subject, self.settings.port)
        if isinstance(endpoint, Outcome):
            return endpoint
        where = at(endpoint, self.settings.port)
        with tempfile.TemporaryDirectory(prefix="failback-ssh-") as folder:
            known = Path(folder) / "known_hosts"
            known.write_text("".join(f"{ALIAS} {line}\n" for line in self.settings.host_key.splitlines()))
            try:
                ran = run(
                    self._arguments(endpoint, known, attempt.seconds),
                    seconds=attempt.seconds,
                    cancelled=attempt.cancelled,
                    environ=environment(AGENT if AGENT[0] in os.environ else ()),
                )
            except FileNotFoundError:
                return Outcome(
                    "failed", "ssh is not installed on this host: apt-get install openssh-client", final=True
                )
            keys = known.read_text("utf-8", "replace").splitlines()
        error = last_lines(decoded(ran.error), 3)
        if ran.exit_code is None:
            return failed(f"{where}: not through within {attempt.seconds:.0f} s" + (f": {error}" if error else ""))
        if ran.exit_code == SSH_FAILED and self.settings.exit_code != SSH_FAILED:
            return failed(f"{where}: {error or f'exit code {SSH_FAILED}'}")
        outcome = judged(self.settings, ran.exit_code, ran.output, ran.error)
        if not self.settings.accept_new:
            return replace(outcome, seen=f"{outcome.seen}; the host key is the one expected")
        recorded = ", ".join(fingerprint(line) for line in keys) or "none shown"
        return replace(outcome, seen=f"{outcome.seen}; host key accepted unseen: {recorded}")

    def _arguments(self, endpoint: Endpoint, known: Path, seconds: float) -> list[str]:
        settings = self.settings
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(max(1, int(seconds))),
            "StrictHostKeyChecking": "accept-new" if settings.accept_new else "yes",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": "none",
            "HostKeyAlias": ALIAS,
            "HashKnownHosts": "no",
            "UpdateHostKeys": "no",
            "LogLevel": "ERROR",
        }
        arguments = ["ssh", "-F", "none", "-n", "-T", "-x", "-a", "-p", str(endpoint.port), "-l", settings.user]
        for name, value in options.items():
            arguments += ["-o", f"{name}={value}"]
        if settings.key is not None:
            arguments += ["-o", "IdentitiesOnly=yes", "-i", str(settings.key)]
        return [*arguments, "--", endpoint.host, settings.command]


def fingerprint(line: str) -> str:
    """`ssh-ed25519 SHA256:...` of a line of known_hosts, as ssh-keygen(1) -l shows it."""
    _, kind, key = line.split()[:3]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"
