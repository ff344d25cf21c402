"""`failback schedule`: what of a plan is done by the clock of this host."""

from __future__ import annotations

import typer

from pipeline.cli.schedule.install import install
from pipeline.cli.schedule.list import list_
from pipeline.cli.schedule.remove import remove
from pipeline.cli.schedule.run import run

app = typer.Typer(no_args_is_help=True)
app.command("install")(install)
app.command("list")(list_)
app.command("remove")(remove)
app.command("run")(run)
