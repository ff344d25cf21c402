"""`failback worker`: the disk of a machine that is an agent and nothing else."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError

app = typer.Typer(no_args_is_help=True)


class FormatName(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"


@app.callback()
def _group() -> None:
    """A worker boots into memory and waits for a pairing code; one disk serves all sites."""


@command
def build(
    invocation: Invocation,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new disk.")],
    image_format: Annotated[FormatName, typer.Option("--format", help="Of the file.")] = FormatName.RAW,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings, lines NAME=VALUE, for the disk; better nothing secret."),
    ] = None,
) -> Ending:
    """Make the disk of a worker from packages of Debian 12. Needs no root; the first time takes minutes.

    It has no account, no password, no key and no code. Its settings come when it boots: see the README, "Agents".
    """
    from pipeline.agent.image import build_worker
    from pipeline.units import size

    if config is not None and not config.is_file():
        raise UsageError(f"there is no file {config}", remedy="name a file with the settings, or leave --config away")
    invocation.output.note("making a worker's disk; packages and wheels are fetched the first time")
    found = build_worker(out, config=config, image_format=image_format.value)
    invocation.output.say(f"{out} is a worker's disk of {size(found)}")
    return Ending(values={"disk": str(out), "bytes": found, "format": image_format.value})


app.command("build")(build)
