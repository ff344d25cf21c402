"""`failback doctor`: what is missing on this host, and what mends it."""

from __future__ import annotations

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.units import count


@command
def doctor(invocation: Invocation) -> Ending:
    """Check this host, its settings and its way to the repository; each finding comes with what mends it."""
    from pipeline.doctor import examine

    findings = []
    say = invocation.output.say
    for finding in examine(invocation.settings):
        findings.append(finding)
        say(f"{finding.state:<5} {finding.about}: {finding.text}")
        if finding.remedy:
            say(f"      → {finding.remedy}")
    bad = [finding for finding in findings if finding.state == "bad"]
    say(f"{count(len(bad), 'thing')} to mend" if bad else "this host is ready")
    if bad:
        invocation.failed_quietly("; ".join(f"{finding.about}: {finding.text}" for finding in bad))
    return Ending(
        exitcodes.NOT_CLEAN if bad else exitcodes.OK,
        {"findings": [{"about": f.about, "state": f.state, "text": f.text, "remedy": f.remedy} for f in findings]},
    )
