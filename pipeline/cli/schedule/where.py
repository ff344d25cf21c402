"""Where a schedule is kept on this host."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.cli.invocation import Invocation


class How(StrEnum):
    AUTO = "auto"
    SYSTEMD = "systemd"
    CRON = "cron"


HowOption = Annotated[
    How, typer.Option("--as", help="systemd timers or lines of the crontab. auto: systemd where it runs, else cron.")
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Where units go; systemctl is not called then. Default: the system's for root, else the user's own.",
    ),
]


def chosen(how: How, folder: Path | None) -> How:
    from pipeline.schedule import systemd

    if how is not How.AUTO:
        return how
    return How.SYSTEMD if folder is not None or systemd.running() else How.CRON


def units_folder(folder: Path | None) -> tuple[Path, bool]:
    """The folder, and whether it is a user's."""
    from pipeline.schedule import systemd

    user = os.geteuid() != 0
    return folder or (systemd.user_folder() if user else systemd.SYSTEM), user


def results_folder(invocation: Invocation) -> Path:
    return invocation.settings.state_dir / "schedule"
