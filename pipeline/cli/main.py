"""`failback`: the entry point and the list of commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.agent import app as agent
from pipeline.cli.clean import clean
from pipeline.cli.copy import copy
from pipeline.cli.diff import diff
from pipeline.cli.doctor import doctor
from pipeline.cli.export import export
from pipeline.cli.forget import forget
from pipeline.cli.gc import gc
from pipeline.cli.hold import hold, release
from pipeline.cli.import_ import import_
from pipeline.cli.invocation import Common, JsonOption, QuietOption, RepositoryOption, VerboseOption
from pipeline.cli.key import app as key
from pipeline.cli.list import list_
from pipeline.cli.plan import app as plan
from pipeline.cli.protect import protect
from pipeline.cli.rehearse import rehearse
from pipeline.cli.repair import repair
from pipeline.cli.repository import app as repository
from pipeline.cli.run import app as run_of_plan
from pipeline.cli.salvage import salvage
from pipeline.cli.schedule import app as schedule
from pipeline.cli.scrub import scrub
from pipeline.cli.serve import serve
from pipeline.cli.show import show
from pipeline.cli.stop import stop
from pipeline.cli.unforget import unforget
from pipeline.cli.verify import verify
from pipeline.cli.worker import app as worker

app = typer.Typer(
    name="failback",
    help="Bring failed-over machines home: their disks go through a bucket and come back bit for bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage, 3 no such point, 4 store, 5 damaged data, 6 source, 7 target, "
    "8 data differ, 9 held by another command, 10 unreadable ranges, 11 found something to mend beforehand, "
    "12 does not start or a check failed, 13 keys, 14 agents, 15 a run waits for a person, 16 for its conditions, "
    "17 a run ended otherwise than at home, 70 bug.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"failback {version('failback')}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: typer.Context,
    repository: RepositoryOption = "",
    quiet: QuietOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    _show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    ctx.obj = Common(repository, quiet, json, verbose)


app.add_typer(repository, name="repository", help="Make a repository, or see what one is and can do.")
app.add_typer(key, name="key", help="Who may open an encrypted repository, and as what.")
app.add_typer(agent, name="agent", help="Programs elsewhere that write disks, and obey this host.")
app.add_typer(worker, name="worker", help="Make the disk of a machine that is an agent.")
app.add_typer(plan, name="plan", help="Say which machines come home together, how and when, and look at it beforehand.")
app.add_typer(run_of_plan, name="run", help="Execute a plan: bring its machines home together, or back.")
app.add_typer(schedule, name="schedule", help="What of a plan this host does by its clock.")
app.command("rehearse")(rehearse)
app.command("export")(export)
app.command("import")(import_)
app.command("copy")(copy)
app.command("verify")(verify)
app.command("stop")(stop)
app.command("clean")(clean)
app.command("serve")(serve)
app.command("list")(list_)
app.command("show")(show)
app.command("diff")(diff)
app.command("forget")(forget)
app.command("unforget")(unforget)
app.command("hold")(hold)
app.command("release")(release)
app.command("gc")(gc)
app.command("scrub")(scrub)
app.command("repair")(repair)
app.command("salvage")(salvage)
app.command("protect")(protect)
app.command("doctor")(doctor)


def run() -> None:
    """The `failback` command."""
    # No linear algebra here: the threads that numpy's library would start only spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        # However it was called: results name the command.
        app(prog_name="failback")
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(exitcodes.FAILED)


if __name__ == "__main__":
    run()
