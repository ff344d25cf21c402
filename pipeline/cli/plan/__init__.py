"""`failback plan`: which machines come home together, how, and when."""

from __future__ import annotations

import typer

from pipeline.cli.plan.check import check
from pipeline.cli.plan.diff import diff
from pipeline.cli.plan.list import list_
from pipeline.cli.plan.new import new
from pipeline.cli.plan.put import put
from pipeline.cli.plan.schema import schema
from pipeline.cli.plan.show import show

app = typer.Typer(no_args_is_help=True)
app.command("new")(new)
app.command("check")(check)
app.command("put")(put)
app.command("show")(show)
app.command("list")(list_)
app.command("diff")(diff)
app.command("schema")(schema)
