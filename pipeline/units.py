"""Numbers for people."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float) -> str:
    """Bytes with three digits that matter: `0 bytes`, `512 bytes`, `1.50 MiB`, `12.0 GiB`, `640 MiB`."""
    if count < 1024:
        return "1 byte" if count == 1 else f"{count:.0f} bytes"
    power = 1
    while count / 1024**power >= 1000 and power < len(_UNITS):
        power += 1
    value = count / 1024**power
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {_UNITS[power - 1]}"


def rate(count: float, seconds: float) -> str:
    """Bytes over seconds."""
    return f"{size(count / max(seconds, 1e-3))}/s"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, big, little in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {big} {rest} {little}" if rest else f"{whole // large} {big}"
    return f"{whole} s"


def moment(text: str) -> str:
    """An RFC 3339 time in this host's time zone, to the second."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def share(part: float, whole: float) -> str:
    """`12 %`; of nothing, nothing."""
    return f"{part / whole:.0%}".replace("%", " %") if whole else "0 %"


def count(number: int, one: str, many: str = "") -> str:
    """`1 disk`, `2 disks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
