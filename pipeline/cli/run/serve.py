"""`failback run serve`: look after all runs of a repository, for as long as this process lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command

if TYPE_CHECKING:
    from pipeline.home.control import Controller
    from pipeline.home.site import Ground
    from pipeline.plans.model import Plan

GRACE_SECONDS = 30.0


@command
def serve(
    invocation: Invocation,
    database: Annotated[
        str,
        typer.Option(
            "--database",
            metavar="URL",
            envvar="FAILBACK_DATABASE",
            help="postgresql://USER@HOST/NAME, which several hosts share: one is active, others stand by. "
            "Default: SQLite in the state folder, for the processes of this host. Losing it loses nothing.",
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=64, help="Runs that are worked on at once; waiting ones do not count.")
    ] = 4,
) -> Ending:
    """Conduct every run that is not over, whoever began it: wait for conditions and time, go on when a person has
    decided, take over from a conductor that died. Runs until it is interrupted; a service manager starts it again.

    Begin runs with `failback run start --detach`, decide with `failback run approve --no-conduct`, from anywhere.
    """
    from pipeline.cli.grounds import ground_of
    from pipeline.runs.serve import Server
    from pipeline.runs.wake import Wakes
    from pipeline.runs.workqueue import Database

    repository = invocation.open_repository()
    invocation.grace_seconds = GRACE_SECONDS
    invocation.how_to_go_on = lambda: "`failback run serve` goes on, here or on any other host"
    name = repository.document.id[:8]
    place = invocation.settings.state_dir.absolute() / "wake" / f"{name}.sqlite"

    def ground(plan: Plan, control: Controller) -> Ground:
        return ground_of(invocation, plan.mapping, repository=repository, control=control)

    def tell(run: str, text: str) -> None:
        invocation.note(f"{run}: {text}" if run else text)
        invocation.output.event("run", run=run, told=text)

    server = Server(
        Wakes(repository, ground, tell),
        Database(database or f"sqlite:///{place}"),
        name,
        limit,
        tell=lambda text: tell("", text),
        log=invocation.warn if invocation.common.verbose else _logged,
    )
    server.serve()
    return Ending()


def _logged(text: str) -> None:
    from pipeline import logs

    logs.logger().warning("%s", text)
