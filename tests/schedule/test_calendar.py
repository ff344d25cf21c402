"""systemd's calendar expressions, and crontab fields that mean the same."""

from __future__ import annotations

import shutil

import pytest

from pipeline.errors import UsageError
from pipeline.schedule.calendar import check_calendar, to_cron

SAME = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "weekly": "0 0 * * 1",
    "*:0/5": "*/5 * * * *",
    "*:2/5": "2-59/5 * * * *",
    "0/6:00": "0 */6 * * *",
    "03:30": "30 3 * * *",
    "03:30:00": "30 3 * * *",
    "Sun 03:00": "0 3 * * 0",
    "Mon..Fri 22:00": "0 22 * * 1,2,3,4,5",
    "Sat,Sun 8..18:15": "15 8-18 * * 0,6",
    "Fri..Sun 01:00": "0 1 * * 0,5,6",
    "*-*-01 04:00": "0 4 1 * *",
    "*-01,07-01 04:00": "0 4 1 1,7 *",
    "*-12-24": "0 0 24 12 *",
    "12-24 00:00": "0 0 24 12 *",
    "Mon": "0 0 * * 1",
}


@pytest.mark.parametrize("text", SAME)
def test_a_crontab_says_the_same(text: str) -> None:
    assert to_cron(text) == SAME[text]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("text", SAME)
def test_what_we_understand_systemd_does_too(text: str) -> None:
    check_calendar(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is none"),
        ("soon", "is no day of the week"),
        ("Sun 03:00 Europe/Berlin", "time zone"),
        ("*:*:30", "no seconds"),
        ("2026-*-01 04:00", "no years"),
        ("Sun *-*-01 04:00", "days of the week and of the month"),
        ("25:00", "out of range"),
        ("*-*~1 04:00", "is not understood"),
        ("*:*/5", "out of range"),
        ("Fri..Mon 01:00", "ends before it begins"),
        ("*-13-01", "out of range"),
        ("*:0/0", "out of range"),
    ],
)
def test_what_a_crontab_cannot_say_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        to_cron(text)


@pytest.mark.parametrize("with_systemd", [True, False])
def test_what_is_no_expression_is_refused(monkeypatch: pytest.MonkeyPatch, with_systemd: bool) -> None:
    if not with_systemd:
        monkeypatch.setattr("pipeline.schedule.calendar.shutil.which", lambda _name: None)
    elif shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    with pytest.raises(UsageError, match="next tuesday"):
        check_calendar("next tuesday")
