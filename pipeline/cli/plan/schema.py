"""`failback plan schema`: what a plan may say, for editors."""

from __future__ import annotations

import json

from pipeline.cli.invocation import Ending, Invocation, command


@command
def schema(invocation: Invocation) -> Ending:
    """Print the JSON schema of plans, with the kinds of conditions and traffic steps that are installed here."""
    from pipeline.plans.schema import plan_schema

    found = plan_schema()
    invocation.output.say(json.dumps(found, indent=1))
    return Ending(values={"schema": found})
