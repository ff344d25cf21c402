"""`failback repository`: make a repository, see what it is, find out what its store can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.units import size

app = typer.Typer(no_args_is_help=True)

_ABILITIES = {
    "conditional_put": ("create-only writes", "exactly one of two racing writers wins"),
    "ranged_get": ("ranged reads", "a chunk is read without its pack"),
    "multi_delete": ("deleting many objects at once", ""),
    "list_after": ("listings that start behind a key", ""),
    "checksum_headers": ("checksums of uploads", ""),
    "object_lock": ("object lock", ""),
    "versioning": ("versioning", ""),
}


@command
def init(
    invocation: Invocation,
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", metavar="KIB", help="Default size of a chunk: 64, 128, 256, 512 or 1024 KiB.")
    ] = 64,
) -> Ending:
    """Probe the store and make a repository there. A bucket must exist; a directory is made."""
    from pipeline.repository import Repository

    repository = Repository.init(invocation.open_store(create=True), chunk_size=chunk_size << 10)
    invocation.output.say(f"made repository {repository.id.hex()} at {repository.store.name}")
    _say_abilities(invocation, repository.document.abilities)
    return Ending(values=_described(repository.document, repository.store.name))


@command
def info(invocation: Invocation) -> Ending:
    """Show what the repository is: its id, format, chunk size, the store's abilities, how many machines it holds."""
    from pipeline.catalogue import machines

    repository = invocation.open_repository()
    document = repository.document
    found = machines(repository)
    invocation.output.say(
        f"repository  {document.id}",
        f"at          {repository.store.name}",
        f"made        {document.created}",
        f"format      {document.format}, {'encrypted' if document.encryption else 'not encrypted'}",
        f"chunks      {size(document.chunk_size)}",
        f"machines    {len(found)}",
    )
    _say_abilities(invocation, document.abilities)
    return Ending(values={**_described(document, repository.store.name), "machines": len(found)})


@command
def probe(invocation: Invocation) -> Ending:
    """Find out what the store can do, with small objects below probe/ that are deleted again."""
    store = invocation.open_store()
    abilities = asdict(store.probe())
    invocation.output.say(f"{store.name} can do:")
    _say_abilities(invocation, abilities)
    return Ending(values={"address": store.name, "abilities": abilities})


def _described(document: Any, address: str) -> dict[str, Any]:
    return {
        "repository": document.id,
        "address": address,
        "created": document.created,
        "format": document.format,
        "chunk_size": document.chunk_size,
        "abilities": document.abilities,
    }


def _say_abilities(invocation: Invocation, abilities: dict[str, Any]) -> None:
    for key, (words, use) in _ABILITIES.items():
        if key in abilities:
            answer = "yes" if abilities[key] else "no"
            invocation.output.say(f"  {answer:<4}{words}{f' ({use})' if use and not abilities[key] else ''}")
    skew = float(abilities.get("clock_skew", 0))
    if abs(skew) >= 60:
        invocation.warn(f"the store's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's")
    for note in abilities.get("notes", ()):
        invocation.output.say(f"      {note}")
    if not abilities.get("conditional_put", True):
        invocation.warn("without create-only writes, let only one host export a machine at a time")


app.command("init")(init)
app.command("info")(info)
app.command("probe")(probe)
