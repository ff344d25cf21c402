"""`failback run`: one execution of a plan, from its first condition to the commit, or back."""

from __future__ import annotations

import typer

from pipeline.cli.run.adopt import adopt
from pipeline.cli.run.conduct import conduct
from pipeline.cli.run.decide import add_words
from pipeline.cli.run.list import list_
from pipeline.cli.run.reown import reown
from pipeline.cli.run.runbook import runbook
from pipeline.cli.run.serve import serve
from pipeline.cli.run.show import show
from pipeline.cli.run.start import start
from pipeline.cli.run.watch import watch

app = typer.Typer(no_args_is_help=True)
app.command("start")(start)
app.command("conduct")(conduct)
app.command("adopt")(adopt)
app.command("serve")(serve)
app.command("list")(list_)
app.command("show")(show)
app.command("watch")(watch)
app.command("runbook")(runbook)
add_words(app)
app.command("reown")(reown)
