"""`failback doctor --to TARGET --deep FILE`: a target is tried out, and a report says how each thing went."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.grounds import ground_of
from pipeline.cli.mapped import read_mapping
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.cli.invocation import Invocation
    from pipeline.target import Tried

FORMAT = 1


def try_out(invocation: Invocation, target: str, mapping: str, file: Path) -> Iterator[Tried]:
    """Each point as it is done. The report is whole after each, and names the run, so that the same command takes away
    what one that was killed left there. Raises UsageError for a target that cannot be tried."""
    from pipeline.target import Triable

    importer = ground_of(invocation, read_mapping(mapping)).importer(target)
    invocation.stack.callback(importer.close)
    if not isinstance(importer, Triable):
        raise UsageError(f"{target} has no such trial", remedy="leave --deep out")
    report: dict[str, Any] = {
        "format": FORMAT,
        "failback": metadata.version("failback"),
        "target": target,
        "run": str(_run_of(file) or uuid.uuid4()),
        "complete": False,
        "points": [],
    }
    _write(file, report)
    for tried in importer.trial(uuid.UUID(report["run"])):
        report["points"].append(
            {"point": tried.point, "outcome": tried.outcome, "detail": tried.detail, "seconds": tried.seconds}
        )
        _write(file, report)
        yield tried
    report["complete"] = True
    _write(file, report)


def _run_of(file: Path) -> uuid.UUID | None:
    """Of the report that is there. Raises UsageError for a file that is none."""
    try:
        return uuid.UUID(json.loads(file.read_bytes())["run"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(f"{file} is there, and is no report", remedy="name another file") from error


def _write(file: Path, report: dict[str, Any]) -> None:
    """The file has the old report or the new one, whatever happens."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", remedy="name another file") from error
