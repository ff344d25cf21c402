"""Change lists: what the user's platform says changed on a disk."""

from __future__ import annotations

import re
from typing import Any

from pipeline.cli.documents import read_document
from pipeline.errors import UsageError
from pipeline.transfer.export_request import ChangedBlocks

SHAPE = 'a change list is {"since": POINT, "extents": [[OFFSET, LENGTH], …]}, in bytes'


def read_changes(where: str, *, since: str, latest: int, size: int) -> ChangedBlocks | None:
    """The change list at `where` for a disk of `size` bytes; None when there is no point it could begin at.

    `since` is what the user says of its beginning: a number, `latest`, or nothing, then the file must say it. `latest`
    is the machine's newest point, 0 for none. A list whose beginning nobody knows is refused: taking it for newer than
    it is would lose changes.
    """
    document = read_document(where)
    if isinstance(document, list):
        document = {"extents": document}
    if not isinstance(document, dict) or not isinstance(document.get("extents"), list):
        raise UsageError(f"{where} is not a change list", remedy=SHAPE)
    begin = _since(where, document.get("since"), since, latest)
    extents = tuple(_extent(where, item, size) for item in document["extents"])
    return ChangedBlocks(begin, extents) if begin else None


def _since(where: str, written: Any, said: str, latest: int) -> int:
    if written is not None and (type(written) is not int or written < 1):
        raise UsageError(f"{where}: since is {written!r}, not the number of a point", remedy=SHAPE)
    if not said:
        if written is None:
            raise UsageError(
                f"{where} does not say since which recovery point its changes are",
                remedy="say it with --changes-since POINT, or --changes-since latest if that is sure",
            )
        return int(written)
    if said != "latest" and not re.fullmatch(r"[1-9]\d{0,9}", said):
        raise UsageError(f"--changes-since {said} is no point", remedy="give the number of a point, or latest")
    meant = latest if said == "latest" else int(said)
    if written is not None and written != meant:
        raise UsageError(
            f"{where} says its changes are since point {written}, --changes-since says {meant}",
            remedy="leave --changes-since out if the file is right",
        )
    return meant


def _extent(where: str, item: Any, size: int) -> tuple[int, int]:
    if not (isinstance(item, list) and len(item) == 2 and all(type(n) is int and n >= 0 for n in item)):
        raise UsageError(f"{where}: {str(item)[:80]} is not an extent", remedy=SHAPE)
    offset, length = item
    if offset + length > size:
        raise UsageError(
            f"{where} has a change of {length} bytes at {offset}; the disk has {size} bytes",
            remedy="the list is of another disk, or of another time",
        )
    return offset, length
