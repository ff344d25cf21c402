"""`failback plan check`: what can be known before a run begins."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.plan.given import FILE_OR_NAME, given_plan


@command
def check(invocation: Invocation, plan: Annotated[str, typer.Argument(metavar="PLAN", help=FILE_OR_NAME)]) -> Ending:
    """Look at a plan, its source, target, points, checks and conditions, for all machines at once. Nothing is changed
    or stored; conditions that do not hold yet are shown. Exit code 11 when something has to be mended."""
    from pipeline.cli.plan.world import opened
    from pipeline.plans.check import check_plan
    from pipeline.units import count

    found_plan, _, _ = given_plan(invocation, plan)
    signs = {"error": "bad", "warning": "hint", "note": "ok"}
    with opened(invocation, found_plan) as world:
        findings = []
        for found in check_plan(world):
            findings.append(found)
            finding, about = found.finding, f"{found.machine}: " if found.machine else ""
            invocation.output.say(f"{signs[finding.severity]:<5} {about}{finding.subject}: {finding.message}")
            if finding.remedy:
                invocation.output.say(f"      → {finding.remedy}")
    errors = [found for found in findings if found.finding.severity == "error"]
    invocation.output.say(f"{count(len(errors), 'thing')} to mend" if errors else f"plan {found_plan.name} can be run")
    if errors:
        said = "; ".join(f"{f.machine}: {f.finding.message}".removeprefix(": ") for f in errors)
        invocation.failed_quietly(said)
    return Ending(
        exitcodes.NOT_CLEAN if errors else exitcodes.OK,
        {
            "plan": found_plan.name,
            "findings": [
                {
                    "machine": f.machine,
                    "severity": f.finding.severity,
                    "subject": f.finding.subject,
                    "message": f.finding.message,
                    "remedy": f.finding.remedy,
                }
                for f in findings
            ],
        },
    )
