"""The options that say how a machine that was switched on is verified, and what is done with what was seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.documents import read_document, write_bytes
from pipeline.errors import NotReady, TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manifests.machine import Machine
    from pipeline.cli.invocation import Invocation
    from pipeline.target import Build, Control, Importer
    from pipeline.verify.checks import Check
    from pipeline.verify.results import Results
    from pipeline.wanted import Wanted

ChecksOption = Annotated[
    str, typer.Option("--checks", metavar="FILE", help="YAML with a list `checks:`; see the README.")
]
HookOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hook",
        metavar="NAME[:...]",
        help="A check: console:TEXT, tcp:22, http:80/health=200, ssh:…, guest:…, exec:… May be repeated.",
    ),
]
JunitOption = Annotated[str, typer.Option("--junit", metavar="FILE", help="Write the checks' results as JUnit XML.")]
PictureOption = Annotated[
    str, typer.Option("--picture", metavar="FILE", help="Write a picture of the console as PNG when all is known.")
]

DEFAULT = "console"
"""The check when none is named: the console shows something else than the firmware's first picture."""


class Checking:
    """Verifies one machine, once; remembers what came of it."""

    def __init__(
        self,
        invocation: Invocation,
        *,
        checks: str,
        hooks: Sequence[str],
        junit: str,
        picture: str,
        artifacts: Path,
        always: bool = False,
    ) -> None:
        """Raises UsageError for checks that cannot be, before anything is done. Where something is to be seen, or
        `always`, and nothing says what, the console is looked at."""
        for option, where in (("--junit", junit), ("--picture", picture)):
            if where and "://" not in where and not Path(where).absolute().parent.is_dir():
                raise UsageError(f"{option} {where}: there is no such folder", remedy="make it first")
        self.checks = _read_checks(checks, hooks, by_default=always or bool(junit or picture))
        self.results: Results | None = None
        self.pictured = ""
        self._invocation = invocation
        self._junit, self._picture, self._artifacts = junit, picture, artifacts

    @property
    def asked(self) -> bool:
        """Something is to be seen of a machine that runs."""
        return bool(self.checks)

    @property
    def weak(self) -> bool:
        """Nothing is asked of the machine but that its picture changes."""
        return all(check.hook == DEFAULT and not check.settings for check in self.checks)

    def check_reachable(self, wanted: Wanted) -> None:
        """Raises NotReady when a required check is about a port of a machine that has no network adapter: better
        before its disks are restored than after it has booted."""
        from pipeline.verify.checks import ports_of

        if wanted.networks:
            return
        for check in self.checks:
            if check.level == "required" and (ports := ports_of([check])):
                raise NotReady(
                    f"{wanted.name} has no network adapter: the check {check.name!r} cannot reach port {ports[0]}",
                    remedy="the mapping takes its adapters away (null): map one, or leave the check out"
                    if wanted.hardware.nics
                    else "export it with --nic network=NAME, which sends only what changed, or leave the check out",
                )

    def on(self, machine: Machine, control: Control, importer: Importer, build: Build, *, fresh: bool) -> Results:
        """Run the checks, then take the picture, whatever they found. `fresh`: it was switched on just now."""
        import time
        from datetime import UTC, datetime

        from pipeline.verify.junit import junit_xml
        from pipeline.verify.runner import run_checks
        from pipeline.verify.subject import BuildSubject

        begun = datetime.now(UTC)
        subject = BuildSubject(importer, build, machine, self._artifacts, booted=time.monotonic(), fresh=fresh)
        try:
            self.results = run_checks(self.checks, subject, control)
        finally:
            self._take_picture(importer, build)
        if self._junit:
            write_bytes(self._junit, junit_xml(self.results, begun=begun))
        return self.results

    def _take_picture(self, importer: Importer, build: Build) -> None:
        if not self._picture:
            return
        try:
            png, why = importer.picture(build), "there is none to be had"
        except TargetError as error:  # what the checks found counts, not that it could not be pictured
            png, why = None, error.message
        if png is None:
            self._invocation.warn(f"no picture of the console, {self._picture} was not written: {why}")
            return
        write_bytes(self._picture, png)
        self.pictured = self._picture


def _read_checks(where: str, hooks: Sequence[str], *, by_default: bool) -> list[Check]:
    if not where and not hooks and not by_default:
        return []
    from pipeline.verify.checks import load_checks, validate
    from pipeline.verify.short import parse_hook

    checks = load_checks(read_document(where, yaml=True), where) if where else []
    checks += [parse_hook(hook) for hook in hooks]
    checks = checks or [parse_hook(DEFAULT)]
    validate(checks, where or "--hook")
    return checks
