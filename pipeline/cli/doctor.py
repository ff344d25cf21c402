"""`failback doctor`: what is missing on this host, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.deep import try_out
from pipeline.cli.grounds import ground_of
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.mapped import MapOption, read_mapping
from pipeline.errors import UsageError
from pipeline.units import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.doctor import Finding


@command
def doctor(
    invocation: Invocation,
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET", help="Check this target, too; it needs a repository.")
    ] = "",
    mapping: MapOption = "",
    deep: Annotated[
        Path | None,
        typer.Option(
            "--deep",
            metavar="FILE",
            help="With --to: try there what was never run on a real one: small things are made and removed again. "
            "The report goes to FILE.",
        ),
    ] = None,
) -> Ending:
    """Check this host, its settings and its way to the repository; each finding comes with what mends it."""
    if deep is not None and not to:
        raise UsageError("--deep tries a target, and none is named", remedy="name one with --to TARGET")
    findings = []
    say = invocation.output.say
    for finding in _all(invocation, to, mapping):
        findings.append(finding)
        say(f"{finding.state:<5} {finding.about}: {finding.text}")
        if finding.remedy:
            say(f"      → {finding.remedy}")
    bad = [finding for finding in findings if finding.state == "bad"]
    if deep is not None and not bad:
        for tried in try_out(invocation, to, mapping, deep):
            say(f"{tried.outcome}: {tried.point} ({tried.seconds:.1f} s): {tried.detail}")
        say(f"the report is in {deep}")
    elif deep is not None:
        say(f"nothing was tried on {to}, and {deep} was not written: what is bad has to be mended first")
    say(f"{count(len(bad), 'thing')} to mend" if bad else "this host is ready")
    if bad:
        invocation.failed_quietly("; ".join(f"{finding.about}: {finding.text}" for finding in bad))
    return Ending(
        exitcodes.NOT_CLEAN if bad else exitcodes.OK,
        {"findings": [{"about": f.about, "state": f.state, "text": f.text, "remedy": f.remedy} for f in findings]},
    )


def _all(invocation: Invocation, target: str, mapping: str) -> Iterator[Finding]:
    from pipeline.doctor import Finding, State, examine

    yield from examine(invocation.settings)
    if not target:
        return
    states: dict[str, State] = {"error": "bad", "warning": "hint", "note": "ok"}
    importer = ground_of(invocation, read_mapping(mapping)).importer(target)
    invocation.stack.callback(importer.close)
    found = importer.examine()
    for finding in found:
        yield Finding(
            about=f"{target}: {finding.subject}",
            state=states[finding.severity],
            text=finding.message,
            remedy=finding.remedy,
        )
    if all(finding.severity != "error" for finding in found):
        yield Finding(about=target, state="ok", text="ready")
