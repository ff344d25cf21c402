"""`failback plan new`: a plan to be filled in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.mapped import ToOption
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.plans.draft import Known


@command
def new(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the plan: a-z, 0-9 and '-'.")],
    machine: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Repeat it for more. Default: all of the repository.")
    ] = None,
    to: ToOption = "qemu",
    source: Annotated[
        str, typer.Option("--source", metavar="KIND", help="Where they run now. Default: as their points say.")
    ] = "",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Default: NAME.yaml. -: standard output.")] = "",
) -> Ending:
    """Write a plan as YAML with comments: what the repository knows of the machines is in it, the rest is to be filled
    in. A file that exists is left alone."""
    from pipeline.plans.draft import draft
    from pipeline.plans.stored import parse_version

    parse_version(name)
    if "@" in name:
        raise UsageError(f"{name} is no name of a plan", remedy="leave the version away")
    path = Path(out or f"{name}.yaml")
    if out != "-" and path.exists():
        raise UsageError(f"{path} exists", remedy="choose another with --out FILE, or remove it")
    known = _known(invocation, machine or [])
    text = draft(name, known, target=to, source=source or _source_of(known))
    if out == "-":
        invocation.output.say(text.rstrip("\n"))
    else:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", remedy="check its folder") from None
        invocation.output.say(f"{path} is to be filled in; `failback plan check {path}` says what is missing")
    return Ending(values={"plan": name, "file": "" if out == "-" else str(path), "text": text})


def _known(invocation: Invocation, names: list[str]) -> list[Known]:
    from manifests.names import encode_machine
    from pipeline.catalogue import latest, machines
    from pipeline.plans.draft import Known

    repository = invocation.open_repository()
    wanted = list(dict.fromkeys(names)) or machines(repository)
    if not wanted:
        raise UsageError("the repository holds no machine yet", remedy="name those of the plan: --machine NAME")
    for name in wanted:
        encode_machine(name)
    found = [Known(name, latest(repository, name)) for name in wanted]
    for known in found:
        if known.point is None:
            invocation.warn(f"{known.name} has no point yet: check its spelling, unless the run is to export it")
    return found


def _source_of(known: Sequence[Known]) -> str:
    """The platform that their points name, if a source of that kind is installed."""
    from pipeline.plans.registry import SOURCES, names

    platforms = {entry.point.manifest.machine.platform for entry in known if entry.point is not None}
    installed = names(SOURCES)
    return next((platform for platform in sorted(platforms) if platform in installed), "command")
