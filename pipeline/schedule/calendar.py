"""Calendar expressions: systemd's, and as far as crontabs can say the same, theirs."""

from __future__ import annotations

import re
import shutil
import subprocess

from pipeline.errors import UsageError

_WORDS = {
    "minutely": "* * * * *",
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "weekly": "0 0 * * 1",
    "monthly": "0 0 1 * *",
    "quarterly": "0 0 1 1,4,7,10 *",
    "semiannually": "0 0 1 1,7 *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXPRESSION = re.compile(
    r"(?:(?P<days>[A-Za-z][A-Za-z.,-]*)\s*)?"
    r"(?:(?:(?P<year>[^-\s]+)-)?(?P<month>[^-:\s]+)-(?P<day>[^-:\s]+)\s*)?"
    r"(?:(?P<hour>[^:\s]+):(?P<minute>[^:\s]+)(?::(?P<second>[^:\s]+))?)?"
)
_ITEM = re.compile(r"(\*|\d{1,2})(?:\.\.(\d{1,2}))?(?:/(\d{1,2}))?")
_EXAMPLE = "write one such as hourly, *:0/15, 03:30, Mon..Fri 22:00 or *-*-01 04:00"


def check_calendar(text: str) -> None:
    """Raises UsageError for what is no calendar expression, as far as this host can tell."""
    program = shutil.which("systemd-analyze")
    if program is None:
        to_cron(text)
        return
    done = subprocess.run([program, "calendar", "--", text], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"systemd-analyze ends with {done.returncode}"
        raise UsageError(f"{text!r} is no calendar expression: {said}", remedy=_EXAMPLE)


def to_cron(text: str) -> str:
    """The five fields of a crontab that mean the same. Raises UsageError for what they cannot say: seconds, years, time
    zones, days from the end of a month, days of the week together with days of the month (which cron joins by "or")."""
    stripped = text.strip()
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    match = _EXPRESSION.fullmatch(stripped)
    if not stripped or match is None:
        raise _refused(text, "it is none, or has a time zone, which a crontab cannot say")
    days, year, month, day, hour, minute, second = match.groups()
    if year not in (None, "*"):
        raise _refused(text, "a crontab knows no years")
    if second is not None and not re.fullmatch("0{1,2}", second):
        raise _refused(text, "a crontab knows no seconds")
    fields = [
        _field(text, minute, 0, 59, "0"),
        _field(text, hour, 0, 23, "0"),
        _field(text, day, 1, 31, "*"),
        _field(text, month, 1, 12, "*"),
        _week(text, days),
    ]
    if fields[2] != "*" and fields[4] != "*":
        raise _refused(text, "days of the week and of the month together mean something else in a crontab")
    return " ".join(fields)


def _field(text: str, value: str | None, least: int, most: int, default: str) -> str:
    if value is None:
        return default
    parts = []
    for item in value.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _refused(text, f"{item!r} is not understood")
        first, last, step = match.groups()
        numbers = [int(n) for n in (first, last) if n not in (None, "*")]
        if any(not least <= n <= most for n in numbers) or (first == "*" and (last or step)) or step in ("0", "00"):
            raise _refused(text, f"{item!r} is out of range")
        if first == "*":
            parts.append("*")
        elif step and last is None and int(first) == least:
            parts.append(f"*/{int(step)}")
        elif last is not None:
            parts.append(f"{int(first)}-{int(last)}" + (f"/{int(step)}" if step else ""))
        else:
            parts.append(f"{int(first)}-{most}/{int(step)}" if step else str(int(first)))
    return ",".join(parts)


def _week(text: str, days: str | None) -> str:
    if days is None:
        return "*"
    found: list[int] = []
    for part in days.rstrip(",").split(","):
        first, dots, last = part.partition("..") if ".." in part else part.partition("-")
        numbers = [_DAYS.index(d[:3].lower()) for d in (first, last if dots else first) if d[:3].lower() in _DAYS]
        if len(numbers) < 2:
            raise _refused(text, f"{part!r} is no day of the week")
        if numbers[1] < numbers[0]:
            raise _refused(text, f"{part!r} ends before it begins; a week begins on Monday")
        found += range(numbers[0], numbers[1] + 1)
    return ",".join(map(str, sorted({(number + 1) % 7 for number in found})))


def _refused(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} cannot be a line of a crontab: {why}", remedy=_EXAMPLE)
