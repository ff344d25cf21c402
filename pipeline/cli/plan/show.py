"""`failback plan show`: a plan as it is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command


@command
def show(
    invocation: Invocation,
    plan: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="The newest version, or the one named.")],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Write it there, to be edited.")] = "",
) -> Ending:
    """Print a stored plan as YAML. Comments of the file that it was read from are not kept."""
    from pipeline.cli.documents import write_bytes
    from pipeline.plans.document import write_yaml
    from pipeline.plans.stored import parse_version, read
    from pipeline.units import moment

    name, version = parse_version(plan)
    stored = read(invocation.open_repository(), name, version)
    text = write_yaml(stored.document)
    said = f"{stored.label}, stored {moment(stored.time)} by {stored.by}"
    if out:
        write_bytes(out, text.encode())
        invocation.output.say(f"{said}, is written to {out}")
    else:
        invocation.output.say(f"# {said}", text.rstrip("\n"))
    return Ending(
        values={
            "plan": stored.plan.name,
            "version": stored.version,
            "digest": stored.digest,
            "time": stored.time,
            "by": stored.by,
            "document": stored.document,
        }
    )
