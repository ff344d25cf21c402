"""console and picture: what was shown, text or only a changed picture, is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulators.pictures import BOOTING, LOGIN, NOTHING_TO_BOOT, SEABIOS, png
from simulators.subject import ALL, FakeSubject

from pipeline.errors import TargetError
from pipeline.target import Abilities, Observation
from pipeline.verify.checks import hook_of
from pipeline.verify.hook import Outcome
from pipeline.verify.short import parse_hook
from verify.hooks.looking import Look

PICTURE_ONLY = replace(ALL, console=frozenset({"picture"}))
CONSOLE = "[    0.1] Linux version 6.1\r\n\x1b[1;32mDebian\x1b[0m 12 web-1 ttyS0\r\n\r\nweb-1 lo\x1b[0mgin: "


def test_text_on_the_serial_console_is_found_without_its_escape_sequences(subject: FakeSubject, look: Look) -> None:
    subject.observation = Observation("on", console=CONSOLE)
    for settings in ({"text": "web-1 login:"}, {"regex": r"^web-\d login: ?$"}):
        outcome = look("console", **settings)
        assert (outcome.status, outcome.seen) == ("passed", "text on the serial console: 'web-1 login:'")


def test_text_that_is_not_there_fails_with_the_last_lines(subject: FakeSubject, look: Look) -> None:
    subject.observation = Observation("on", console=CONSOLE)
    outcome = look("console", text="db-1 login:")
    assert outcome.status == "failed"
    assert outcome.seen == (
        "not on the serial console; its last lines: [    0.1] Linux version 6.1 | Debian 12 web-1 ttyS0 | web-1 login:"
    )


def test_what_looks_like_a_regular_expression_is_text(subject: FakeSubject, look: Look) -> None:
    subject.observation = Observation("on", console="logan:")
    assert look("console", text="log.n:").status == "failed"
    assert look("console", regex="log.n:").status == "passed"


def test_an_empty_serial_console_is_said_to_be_empty(look: Look) -> None:
    assert "the serial console is empty" in look("console", text="login:").seen


def pictures(subject: FakeSubject, look: Look, *shown: bytes, hook: str = "console:login:") -> list[Outcome]:
    """The outcome of one attempt for each picture."""
    subject.abilities = PICTURE_ONLY
    subject.pictures = list(shown)
    one = hook_of(parse_hook(hook))
    return [look(one) for _ in shown]


def test_without_a_text_console_a_picture_that_is_no_longer_the_firmwares_passes_and_says_so(
    subject: FakeSubject, look: Look
) -> None:
    *before, after = pictures(subject, look, png(), png(*SEABIOS), png(*BOOTING), png(), png(*LOGIN))
    assert [outcome.status for outcome in before] == ["failed"] * 4
    assert after.status == "passed"
    assert after.seen.startswith("the picture changed: ")
    assert after.seen.endswith("the text was not looked for: this platform has no text console")
    (path,) = after.artifacts
    assert path.read_bytes() == png(*LOGIN)


@pytest.mark.parametrize("last", [SEABIOS, BOOTING, NOTHING_TO_BOOT, ()])
def test_firmware_that_goes_on_and_a_blank_screen_do_not_pass(
    subject: FakeSubject, look: Look, last: tuple[str, ...]
) -> None:
    outcomes = pictures(subject, look, png(*SEABIOS), png(*last))
    assert outcomes[-1].status == "failed"


def test_another_mode_of_the_screen_passes(subject: FakeSubject, look: Look) -> None:
    outcomes = pictures(subject, look, png(*SEABIOS), png(*SEABIOS, size=(1024, 768)), hook="console")
    assert outcomes[-1].status == "passed"
    assert "text was not looked for" not in outcomes[-1].seen


def test_a_command_that_goes_on_knows_the_firmwares_picture(subject: FakeSubject, look: Look) -> None:
    pictures(subject, look, png(*SEABIOS))
    subject.fresh = False
    (outcome,) = pictures(subject, look, png(*LOGIN))
    assert outcome.status == "passed"
    (outcome,) = pictures(subject, look, png(*BOOTING))
    assert outcome.status == "failed"


def test_a_machine_that_ran_before_and_whose_firmware_nobody_saw_is_not_guessed_at(
    subject: FakeSubject, look: Look
) -> None:
    subject.fresh = False
    (outcome,) = pictures(subject, look, png(*LOGIN))
    assert (outcome.status, outcome.final) == ("failed", True)
    assert "look for a text instead" in outcome.seen


def test_a_console_that_shows_nothing_at_all_is_not_applicable(subject: FakeSubject, look: Look) -> None:
    subject.abilities = Abilities()
    assert look("console", text="login:").status == "not applicable"
    assert look("picture").status == "not applicable"
    subject.abilities = Abilities(console=frozenset({"text"}))
    assert look("console").seen == "this platform shows no pictures of consoles; say what text to look for"


def test_a_picture_is_kept(subject: FakeSubject, look: Look) -> None:
    subject.pictures = [png(*LOGIN)]
    outcome = look("picture", not_blank=True)
    assert (outcome.status, outcome.seen) == ("passed", "720x400 pixels")
    (path,) = outcome.artifacts
    assert path.parent == subject.artifacts
    assert path.read_bytes() == png(*LOGIN)


@pytest.mark.parametrize("background", ["black", "blue"])
def test_a_blank_picture_fails_when_asked(subject: FakeSubject, look: Look, background: str) -> None:
    subject.pictures = [png("_", background=background)]
    asked, unasked = look("picture", not_blank=True), look("picture")
    assert (asked.status, asked.seen) == ("failed", "the console shows nothing (720x400)")
    assert (unasked.status, unasked.seen) == ("passed", "720x400 pixels, blank")


def test_no_picture_where_there_should_be_one_fails(look: Look) -> None:
    assert look("picture").seen == "no picture of the console to be had"


@pytest.mark.parametrize("data", [b"", b"no picture", png(*LOGIN)[:200]])
def test_a_damaged_picture_is_an_error_of_the_platform(subject: FakeSubject, look: Look, data: bytes) -> None:
    subject.pictures = [data]
    with pytest.raises(TargetError, match="console picture cannot be read"):
        look("picture")
