"""What is shown on a terminal fits it."""

from __future__ import annotations

from pipeline.cli.fitted import fitted, screen, shortened

HELD = "    wave 2  web-1  verify failed: answers: 502 Bad Gateway; shop page: the connection was refused by 192.0.2.7"


def test_what_is_carried_over_stands_below_its_column() -> None:
    found = fitted(HELD, 60)
    assert len(found) == 3
    assert all(len(line) <= 60 for line in found)
    assert found[0].startswith("    wave 2  web-1  verify failed:")
    assert all(line.startswith(" " * 19) and line[19] != " " for line in found[1:])
    assert " ".join(line.strip() for line in found) == HELD.strip()


def test_a_line_without_columns_hangs_by_two() -> None:
    found = fitted("  " + "word " * 30, 40)
    assert found[0].startswith("  word")
    assert all(line.startswith("    word") for line in found[1:])


def test_a_short_line_is_left_alone() -> None:
    assert fitted("  a  b", 80) == ["  a  b"]
    assert fitted("", 80) == [""]
    assert shortened("abcdef", 4) == "abc…"


def test_a_word_that_is_wider_than_the_screen_is_broken() -> None:
    assert all(len(line) <= 20 for line in fitted("  x  " + "y" * 70, 20))


def test_what_to_do_is_never_pushed_off_the_screen() -> None:
    rows = screen([f"machine {n}" for n in range(50)], ["held", "undo"], width=80, height=10)
    assert len(rows) == 10
    assert rows[-2:] == ["held", "undo"]
    assert rows[0] == "machine 0"
    assert "43 more lines" in rows[7]
