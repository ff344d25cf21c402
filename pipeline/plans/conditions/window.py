"""`window`: it is one of the times at which this may happen.

    zone: Europe/Berlin
    times: ["mon-fri 22:00-06:00", "sat,sun 00:00-24:00"]     # past midnight it belongs to the day it began on
    only: ["2026-12-01..2026-12-20"]                          # dates; empty: all
    without: ["2026-12-06", "2026-12-24..2027-01-06"]
    remaining: 2h                                             # so much of the window has to be left

A day of `without` has no windows: none begins on it, and one from the day before ends at its midnight. Where clocks are
set, a window has its wall-clock times: it is an hour shorter or longer that night.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from manifests.machine import Model
from pipeline.plans.condition import Answer, Look, World
from pipeline.units import duration
from pipeline.verify.duration import LongSeconds

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LOOK_AHEAD_DAYS = 800
"""So far a next window is looked for."""
_TIMES = re.compile(r"(?:([a-z,-]+)\s+)?(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


class Times(NamedTuple):
    """Days of the week from 0, and minutes of the day; `end` up to 1440, not above `start`: on the next day."""

    days: frozenset[int]
    start: int
    end: int


class Dates(NamedTuple):
    first: date
    last: date


def parse_times(text: str) -> Times:
    """Raises ValueError."""
    match = _TIMES.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f'{text!r} is no window; write it like "mon-fri 22:00-06:00" or "08:00-12:00"')
    minutes = [int(match[n]) * 60 + int(match[n + 1]) for n in (2, 4)]
    if int(match[3]) > 59 or int(match[5]) > 59 or minutes[0] >= 1440 or minutes[1] > 1440:
        raise ValueError(f"{text!r} has no time of the day; they go from 00:00 to 24:00")
    if minutes[0] == minutes[1]:
        raise ValueError(f"{text!r} begins when it ends; a whole day is 00:00-24:00")
    return Times(_days(match[1] or "mon-sun", text), minutes[0], minutes[1])


def parse_dates(text: str) -> Dates:
    """Raises ValueError."""
    first, dots, last = text.partition("..")
    try:
        found = Dates(date.fromisoformat(first.strip()), date.fromisoformat((last if dots else first).strip()))
    except ValueError:
        raise ValueError(f"{text!r} is no date; write 2026-12-24, or 2026-12-24..2027-01-06") from None
    if found.last < found.first:
        raise ValueError(f"{text!r} ends before it begins")
    return found


def _days(text: str, whole: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{whole!r} has no days of the week; they are {', '.join(DAYS)}")
        a, b = DAYS.index(first), DAYS.index(last if dash else first)
        found.update((a + n) % 7 for n in range((b - a) % 7 + 1))
    return frozenset(found)


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"{text!r} is no time zone here; write one like Europe/Berlin (package tzdata)") from None
    return text


def _times(text: str) -> str:
    parse_times(text)
    return text


def _dates(text: str) -> str:
    parse_dates(text)
    return text


DatesText = Annotated[str, AfterValidator(_dates)]


class WindowSettings(Model):
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    times: Annotated[tuple[Annotated[str, AfterValidator(_times)], ...], Field(min_length=1)] = ("00:00-24:00",)
    only: tuple[DatesText, ...] = ()
    without: tuple[DatesText, ...] = ()
    remaining: LongSeconds | None = None


class WindowLook(Look[WindowSettings]):
    Settings = WindowSettings

    def look(self, world: World) -> Answer:
        zone = ZoneInfo(self.settings.zone)
        now = world.now.astimezone(UTC)
        local = f"it is {now.astimezone(zone):%a %Y-%m-%d %H:%M} ({self.settings.zone})"
        need = timedelta(seconds=self.settings.remaining or 0)
        short = ""
        for start, end in self._joined(now, zone):
            if start <= now < end and end - now >= need:
                return Answer(True, f"{local}; the window is open for another {duration((end - now).total_seconds())}")
            if start <= now < end:
                left = duration((end - now).total_seconds())
                short = f"; the window closes in {left}, {duration(need.total_seconds())} have to be left"
            elif start > now and end - start >= need:
                opens = f"{start.astimezone(zone):%a %Y-%m-%d %H:%M}, in {duration((start - now).total_seconds())}"
                return Answer(False, f"{local}{short}; the next window opens {opens}")
        return Answer(False, f"{local}{short}; no window opens within the next {LOOK_AHEAD_DAYS} days")

    def _joined(self, now: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
        """Windows that end after `now`, in UTC and in order; those that touch are one."""
        held: tuple[datetime, datetime] | None = None
        for start, end in self._pieces(now, zone):
            if held is None:
                held = start, end
            elif start <= held[1]:
                held = held[0], max(held[1], end)
            else:
                yield held
                held = start, end
        if held is not None:
            yield held

    def _pieces(self, now: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
        settings = self.settings
        every = [parse_times(text) for text in settings.times]
        only = [parse_dates(text) for text in settings.only]
        without = [parse_dates(text) for text in settings.without]
        today = now.astimezone(zone).date()
        for number in range(-2, LOOK_AHEAD_DAYS):
            day = today + timedelta(days=number)
            if _in(day, without) or (only and not _in(day, only)):
                continue
            found = []
            for times in every:
                if day.weekday() not in times.days:
                    continue
                start, end = _moment(day, times.start, zone), _moment(day, times.end, zone)
                if times.end <= times.start:
                    tomorrow = day + timedelta(days=1)
                    end = _moment(tomorrow, 0 if _in(tomorrow, without) else times.end, zone)
                if start < end and end > now:
                    found.append((start, end))
            yield from sorted(found)


def _in(day: date, ranges: list[Dates]) -> bool:
    return any(dates.first <= day <= dates.last for dates in ranges)


def _moment(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """In UTC. An hour that there is twice: the first."""
    whole = day + timedelta(days=minutes // 1440)
    return datetime.combine(whole, time(minutes % 1440 // 60, minutes % 60), zone).astimezone(UTC)
