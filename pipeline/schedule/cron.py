"""Lines of the user's crontab, each below a line with our mark. All other lines stay as they are."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.schedule.calendar import to_cron
from pipeline.schedule.job import Job, Mark, parse_mark


def lines(job: Job) -> list[str]:
    """The mark and the line. What is called keeps its results itself; errors are mailed, as cron does."""
    environment = [f"{key}={shlex.quote(value)}" for key, value in sorted(job.environment.items())]
    command = " ".join([*environment, shlex.join(job.command)])
    if "\n" in command:
        raise UsageError("a command of several lines cannot stand in a crontab", remedy="use names of one line")
    # An unescaped % is a line feed to cron.
    return [str(job.mark), f"{to_cron(job.calendar)} {command.replace('%', chr(92) + '%')} >/dev/null"]


def installed(table: str, jobs: Sequence[Job], gone: Sequence[Mark] = ()) -> str:
    """The crontab `table` with these jobs in it, each once, and without those that are `gone`."""
    marks = {job.mark for job in jobs} | set(gone)
    kept = []
    found = table.splitlines()
    number = 0
    while number < len(found):
        if parse_mark(found[number]) in marks:
            number += 2
            continue
        kept.append(found[number])
        number += 1
    for job in jobs:
        kept += lines(job)
    return "".join(f"{line}\n" for line in kept)


def entries(table: str) -> list[tuple[Mark, str]]:
    """Ours: mark, and the five fields."""
    rows = table.splitlines()
    pairs = zip(rows, [*rows[1:], ""], strict=True)
    return [(mark, " ".join(line.split()[:5])) for row, line in pairs if (mark := parse_mark(row)) is not None]


def read() -> str:
    """This user's crontab; empty when there is none. Raises UsageError."""
    done = _crontab("-l")
    if done.returncode != 0:
        if "no crontab" in done.stderr.lower():
            return ""
        raise UsageError(f"the crontab cannot be read: {' '.join(done.stderr.split())}", remedy="run `crontab -l`")
    return done.stdout


def write(table: str) -> None:
    """Raises UsageError when cron refuses it; the one before stays then."""
    done = _crontab("-", stdin=table)
    if done.returncode != 0:
        raise UsageError(f"cron refuses the crontab: {' '.join(done.stderr.split())}", remedy="correct the plan")


def there() -> bool:
    return shutil.which("crontab") is not None


def _crontab(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("crontab")
    if program is None:
        raise UsageError("there is no crontab on this host", remedy="install cron, or use systemd: --as systemd")
    return subprocess.run([program, *words], input=stdin, capture_output=True, text=True, timeout=60, check=False)
