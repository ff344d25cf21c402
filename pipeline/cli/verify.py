"""`failback verify`."""

from __future__ import annotations

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError


@command
def verify(invocation: Invocation) -> Ending:
    """Not there yet."""
    raise UsageError("not there yet")
