"""`failback run reown`: after another disaster a machine that came home runs at the takeover site again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command

if TYPE_CHECKING:
    from pipeline.repository import Repository
    from pipeline.runs.ownership import Epoch


@command
def reown(
    invocation: Invocation,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="One that is home for good.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the ownership.")],
    override: Annotated[
        bool,
        typer.Option("--override", help="You have seen that it is off at home, where nobody can be asked any more."),
    ] = False,
) -> Ending:
    """Say that the takeover side may run a machine again which had come home for good, so that a plan can bring it
    home once more. Home must be seen to be off, or you vouch for it. Starts nothing."""
    from pipeline.errors import RunRefused, UsageError
    from pipeline.runs.ownership import advance, current

    if not reason.strip():
        raise UsageError("say why, with --reason", remedy="it is kept with the ownership")
    repository = invocation.open_repository()
    epoch = current(repository, machine)
    if epoch.side == "takeover":
        raise RunRefused(f"{machine} is the takeover side's already", remedy="start it there")
    if epoch.side != "home-committed":
        raise RunRefused(
            f"{machine} is {epoch.side}, by run {epoch.run}",
            remedy=f"`failback run rollback {epoch.run}` gives it back; `reown` is for what is home for good",
        )
    seen = _seen(invocation, repository, epoch)
    if seen["power"] == "on":
        raise RunRefused(
            f"{machine} runs at {seen['target']}", remedy="switch it off there first: nothing overrides this"
        )
    if seen["power"] != "off" and not override:
        raise RunRefused(
            f"nothing proves that {machine} is off at home: {seen['seen']}",
            remedy="look there with your own eyes, then say so with --override",
        )
    proof = {"reason": reason, "seen": seen["seen"]} | ({"override": True} if seen["power"] != "off" else {})
    made = advance(repository, epoch, "takeover", run="", proof=proof)
    invocation.output.say(
        f"{machine} is the takeover side's again (epoch {made.number}, by {made.by}): {seen['seen']}",
        "unlock and start it there; a new run of a plan brings it home",
    )
    if seen.get("place"):
        invocation.output.say(
            f"before that run, the old machine has to go: when nobody needs what it holds, `failback clean {machine} "
            f"--to {seen['target']} --all --force` takes it away with its disks"
        )
    return Ending(values={"machine": machine, "epoch": made.number, "side": made.side, "proof": made.proof})


def _seen(invocation: Invocation, repository: Repository, epoch: Epoch) -> dict[str, Any]:
    """What home shows of the machine, as the plan of the run that brought it there reaches it."""
    from pipeline.cli.grounds import ground_of
    from pipeline.errors import FailbackError
    from pipeline.home.site import open_site
    from pipeline.runs.begin import find_run

    try:
        _state, stored = find_run(repository, epoch.run)
        target = stored.plan.target
        ground = ground_of(invocation, stored.plan.mapping, repository=repository)
        with open_site(ground, target, epoch.machine, "import") as site:
            place = site.find()
            if place is None or place.build is None:
                # A platform that was built anew after a disaster knows nothing of what runs elsewhere.
                return {"target": target, "power": "unknown", "seen": f"{target} shows no such machine"}
            power = site.importer.observe(place.build).power
    except FailbackError as error:
        return {"target": "", "power": "unknown", "seen": error.message}
    return {"target": target, "power": power, "seen": f"{target} says that it is {power}", "place": True}
