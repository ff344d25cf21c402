"""systemd timers: a `.timer` and a `.service` for each job. Files without our mark are never touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.schedule.job import Job, Mark, parse_mark

SYSTEM = Path("/etc/systemd/system")
_CALENDAR = re.compile(r"^OnCalendar=(.*)$", re.MULTILINE)


def user_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def running() -> bool:
    """Whether this host was booted with systemd (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def units(job: Job) -> dict[str, str]:
    """By file name. A wait for conditions is no failure of the service. One for a person is: whoever looks at failed
    units, or is called by them, learns of it."""
    name, mark = job.mark.name, job.mark
    what = f"failback: {mark.job} of plan {mark.plan}"
    environment = "".join(
        f"Environment={_quoted(f'{key}={value}')}\n" for key, value in sorted(job.environment.items())
    )
    service = (
        f"{mark}\n[Unit]\nDescription={what}\n\n[Service]\nType=oneshot\n{environment}"
        f"ExecStart={' '.join(_quoted(word, command=True) for word in job.command)}\nSuccessExitStatus=16\n"
    )
    timer = (
        f"{mark}\n[Unit]\nDescription={what}\n\n[Timer]\nOnCalendar={job.calendar}\nPersistent=true\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )
    return {f"{name}.service": service, f"{name}.timer": timer}


def verify(jobs: Sequence[Job]) -> None:
    """Raises UsageError for units that systemd would not take, where it can be asked."""
    program = shutil.which("systemd-analyze")
    if program is None or not jobs:
        return
    with tempfile.TemporaryDirectory(prefix="failback-units-") as folder:
        paths = []
        for job in jobs:
            for name, text in units(job).items():
                paths.append(Path(folder) / name)
                paths[-1].write_text(text)
        done = subprocess.run(
            [program, "verify", "--man=no", *map(str, paths)], capture_output=True, text=True, timeout=60, check=False
        )
        said = [line for line in (done.stderr + done.stdout).splitlines() if "failback-" in line]
        if done.returncode != 0 and said:
            raise UsageError(f"systemd does not take these timers: {'; '.join(said)[:1000]}", remedy="correct the plan")


def install(folder: Path, jobs: Sequence[Job]) -> list[Path]:
    """Write what differs; returns what was written. Raises UsageError for a file of that name that is not ours."""
    written = []
    for job in jobs:
        for name, text in units(job).items():
            path = folder / name
            there = _read(path)
            if there is not None and parse_mark(there.split("\n", 1)[0]) is None:
                raise UsageError(f"{path} is there and was not written by failback", remedy="rename it, or remove it")
            if there != text:
                _write(path, text)
                written.append(path)
    return written


def entries(folder: Path) -> list[tuple[Mark, str, Path]]:
    """Ours: mark, calendar expression, timer."""
    found = []
    for path in sorted(folder.glob("failback-*.timer")):
        text = _read(path) or ""
        mark, calendar = parse_mark(text.split("\n", 1)[0]), _CALENDAR.search(text)
        if mark is not None:
            found.append((mark, calendar[1] if calendar else "", path))
    return found


def remove(folder: Path, marks: Sequence[Mark]) -> list[Path]:
    """Take away the units with these marks; returns those that were there."""
    gone = []
    for path in sorted([*folder.glob("failback-*.timer"), *folder.glob("failback-*.service")]):
        if parse_mark((_read(path) or "").split("\n", 1)[0]) in marks:
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def tell(*words: str, user: bool) -> str:
    """Call systemctl; what it said against it, else empty."""
    program = shutil.which("systemctl")
    if program is None:
        return "systemctl is not installed"
    done = subprocess.run(
        [program, *(["--user"] if user else []), *words], capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else " ".join((done.stderr or done.stdout).split())


def _quoted(word: str, *, command: bool = False) -> str:
    """As systemd reads it back (systemd.service(5), systemd.syntax(7))."""
    if any(ord(c) < 32 for c in word):
        raise UsageError(f"{word!r} cannot stand in a unit", remedy="use names without control characters")
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$") if command else text}"'


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", remedy="check its rights") from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", remedy="check the folder's rights") from None
