"""`failback import`."""

from __future__ import annotations

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError


@command
def import_(invocation: Invocation) -> Ending:
    """Not there yet."""
    raise UsageError("not there yet")
