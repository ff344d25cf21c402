"""`failback repository policy`: what a host of some role must be allowed in the bucket, and nothing more."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError


class RoleName(StrEnum):
    """As `pipeline.guard.rights` has them."""

    EXPORTER = "exporter"
    IMPORTER = "importer"
    JANITOR = "janitor"
    ADMIN = "admin"
    AGENT = "agent"
    CONTROLLER = "controller"
    CONDUCTOR = "conductor"
    APPROVER = "approver"


class DialectName(StrEnum):
    """As `pipeline.guard.policy` has them."""

    AWS = "aws"
    MINIO = "minio"


@command
def policy(
    invocation: Invocation,
    role: Annotated[RoleName, typer.Option(help="What the host that gets these rights does.")],
    dialect: Annotated[DialectName, typer.Option("--for", help="Whose policy language.")] = DialectName.AWS,
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this machine may be written; repeat it for more. Default: all."),
    ] = None,
    agent: Annotated[
        str, typer.Option(metavar="AGENT", help="The mailbox that this agent may use. Default: those of all.")
    ] = "",
    versions: Annotated[
        bool, typer.Option("--versions", help="Also what is of use in a versioned bucket only: its older versions.")
    ] = False,
) -> Ending:
    """Print the policy of a role: exporter, importer, janitor (forget and collect), admin, agent (writes disks where
    it runs), controller (an importer that gives orders to agents), conductor (stores plans and conducts runs) or
    approver (tells runs what a person decided, with --no-conduct). The store is not asked."""
    from pipeline.guard.policy import AWS_LONGEST
    from pipeline.guard.policy import policy as policy_of
    from pipeline.store.address import S3Address, parse_address

    address = parse_address(invocation.address)
    if not isinstance(address, S3Address):
        raise UsageError(
            f"{invocation.address} is no bucket: it has no policies", remedy="use owners and modes of its directory"
        )
    if role is RoleName.AGENT and machine:
        raise UsageError("an agent has no machines of its own", remedy="name the agent: --agent AGENT")
    if agent and role is not RoleName.AGENT:
        raise UsageError(f"a role {role.value} has no mailbox of its own", remedy="leave --agent away")
    own = [agent] if agent else machine or ()
    found = policy_of(role.value, address, machines=own, versions=versions, dialect=dialect.value)
    length = len(json.dumps(found, separators=(",", ":")))
    if dialect is DialectName.AWS and length > AWS_LONGEST:
        invocation.warn(f"it has {length} characters and AWS takes {AWS_LONGEST}: name fewer machines in one policy")
    invocation.output.say(json.dumps(found, indent=2))
    return Ending(values={"policy": found})
