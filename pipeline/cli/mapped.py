"""`--map` and the options that say the same for one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.documents import read_document

if TYPE_CHECKING:
    from pipeline.mapping import Mapping

MapOption = Annotated[
    str,
    typer.Option(
        "--map",
        metavar="FILE",
        help="Mapping in YAML: names, CPUs, memory, networks, storage of machines at the target, and the target's "
        "own options.",
    ),
]
ToOption = Annotated[
    str, typer.Option("--to", metavar="TARGET", help="The target: files, qemu, vmware, or another that is installed.")
]


def read_mapping(where: str, **said: Any) -> Mapping:
    """The mapping of that file (empty: one that says nothing), with what the command line says on top."""
    from pipeline.mapping import Mapping, parse_mapping

    mapping = parse_mapping(read_document(where, yaml=True), where=where) if where else Mapping()
    return mapping.said(**said)
