"""`failback serve`: a recovery point as an NBD disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError
from pipeline.units import size

if TYPE_CHECKING:
    from manifests.names import PointName
    from pipeline.serve.instant import Instant

_STATUS_SECONDS = 1.0


@command
def serve(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
    state: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="Keeps what the guest writes, until it is merged or dropped.")
    ],
    disk: Annotated[
        int | None, typer.Option("--disk", metavar="N", help="Which disk; needed when the point has several.")
    ] = None,
    socket: Annotated[Path | None, typer.Option("--socket", metavar="PATH", help="Listen on this UNIX socket.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="N", help="Listen on 127.0.0.1, on this port (0: any).")
    ] = None,
    fill: Annotated[
        Path | None,
        typer.Option(
            "--fill",
            metavar="FILE",
            help="Fill this raw file meanwhile, as `import --to files` would; the guest's reads come first.",
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            "--known", metavar="DIR", help="Where what is known of FILE is kept. Default: .failback/NAME beside it."
        ),
    ] = None,
    until_disconnected: Annotated[
        bool, typer.Option("--until-disconnected", help="End when the last client has left.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Serve nothing: write what the guest wrote into the filled FILE.")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Serve nothing: forget what the guest wrote.")] = False,
) -> Ending:
    """Serve a disk of a recovery point over NBD: a machine boots from it at once, and may write.

    Runs until it is told to end (SIGTERM, Ctrl-C). What a guest has flushed survives a power cut, what was acknowledged
    survives a killed server: start it again, with the same options, within the guest's patience.
    """
    from manifests.names import parse_point

    name = parse_point(point)
    if merge or drop:
        return _finish(invocation, name, state, fill, known, merge=merge, drop=drop)
    if socket is None and port is None:
        raise UsageError("where should clients connect?", remedy="give --socket PATH, or --port N")
    repository = invocation.open_repository()

    from pipeline.catalogue import resolve
    from pipeline.serve.instant import Instant, disk_of

    found = resolve(repository, name)
    settings = invocation.settings
    instant = Instant(
        repository,
        found,
        disk_of(found, disk),
        state.absolute(),
        fill=fill.absolute() if fill else None,
        known=known.absolute() if known else None,
        cache=settings.memory_mib << 18,  # a quarter; the rest is for what is on its way
        parallel=max(1, min(6, settings.parallel // 2)),
        until_disconnected=until_disconnected,
    )
    invocation.how_to_go_on = lambda: "run the same command again: what was acknowledged to clients is kept"
    with instant:
        _run(invocation, instant, socket, port)
        instant.save_status(phase="ended")
    status = instant.status
    invocation.note(f"ended; {size(status.fetched)} were fetched")
    return Ending(values={"point": found.manifest.label, "disk": status.disk, "fill": status.phase})


def _run(invocation: Invocation, instant: Instant, socket: Path | None, port: int | None) -> None:
    """Until a signal comes, which is how a server ends, or the last client leaves."""
    where = []
    try:
        if socket is not None:
            instant.server.listen(socket.absolute())
            where.append(f"nbd+unix:///?socket={socket.absolute()}")
        if port is not None:
            where.append(f"nbd://127.0.0.1:{instant.server.listen_tcp(port)}")
        status = instant.status
        invocation.output.say(f"serving {status.point} disk {status.disk} at {' and '.join(where)}")
        invocation.output.event("serving", point=status.point, disk=status.disk, addresses=where)
        while True:
            instant.save_status()
            if instant.server.ended.wait(_STATUS_SECONDS):
                return
    except KeyboardInterrupt:
        pass


def _finish(
    invocation: Invocation,
    point: PointName,
    state: Path,
    fill: Path | None,
    known: Path | None,
    *,
    merge: bool,
    drop: bool,
) -> Ending:
    from pipeline.serve import finish
    from pipeline.serve.overlay import read_head

    if merge and drop:
        raise UsageError("--merge and --drop are opposites", remedy="choose one")
    head = read_head(state)
    if head is not None and (head.machine != point.machine or point.sequence not in (None, head.sequence)):
        raise UsageError(f"{state} holds what a guest wrote on {head.label}", remedy="name that point")
    if drop:
        there = finish.drop(state)
        invocation.output.say("what the guest wrote is dropped" if there else "the guest wrote nothing")
        return Ending(values={"dropped": there})
    if fill is None:
        raise UsageError("--merge needs --fill", remedy="name the filled file")
    written = finish.merge(state.absolute(), fill.absolute(), known=known.absolute() if known else None)
    invocation.output.say(f"{size(written)} that the guest wrote are now in {fill}, which equals no recovery point")
    return Ending(values={"merged": written})
