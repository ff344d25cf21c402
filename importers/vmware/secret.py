"""Where a secret of the platform is found: never in the mapping itself, a URL, a log or a list of processes."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from manifests.machine import Model
from pipeline.errors import UsageError

COMMAND_SECONDS = 60.0
"""A secret store that a person has to unlock may take a while."""


class SecretSource(Model):
    """One of three: an environment variable, the first line of a file, the first line that a command prints."""

    variable: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$|^$")
    file: Path | None = None
    command: str = ""

    @model_validator(mode="before")
    @classmethod
    def _said_where(cls, value: Any) -> Any:
        # The value itself must not end up in an error text.
        if isinstance(value, str):
            raise ValueError("say where it is found: {variable: NAME}, {file: PATH} or {command: PROGRAM}")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(map(bool, (self.variable, self.file, self.command))) != 1:
            raise ValueError("say one of `variable`, `file` and `command`")
        return self

    def describe(self) -> str:
        if self.file is not None:
            return f"the file {self.file}"
        return f"the command {shlex.split(self.command)[0]!r}" if self.command else f"the variable {self.variable}"

    def read(self, what: str, environ: Mapping[str, str] = os.environ) -> str:
        """The secret. `what` is for errors: "the password of root". Raises UsageError."""
        if self.file is not None:
            text = self._from_file(self.file, what)
        elif self.command:
            text = self._from_command(what)
        else:
            text = environ.get(self.variable, "")
        first = text.split("\n", 1)[0].removesuffix("\r")
        if not first:
            raise UsageError(f"{what} is not in {self.describe()}", remedy="put it there, or name another place")
        return first

    def _from_file(self, path: Path, what: str) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{path} is no text, and should hold {what}", remedy="name another file") from None
        except OSError as error:
            raise UsageError(
                f"cannot read {what} from {path}: {error.strerror}", remedy="check its name and rights"
            ) from error

    def _from_command(self, what: str) -> str:
        try:
            done = subprocess.run(
                shlex.split(self.command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.describe()} for {what} does not run: {error}", remedy="correct it") from error
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"{self.describe()} for {what} took more than {COMMAND_SECONDS:.0f} s", remedy="check what it asks"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1][:300]
            raise UsageError(
                f"{self.describe()} for {what} ended with {done.returncode}: {said}", remedy="check what it asks"
            )
        return done.stdout
