"""guest and heartbeat: what a program in the guest tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from simulators.subject import ALL, FakeSubject

from pipeline.errors import Unsupported
from pipeline.target import CommandResult, Observation
from pipeline.verify.checks import hook_of
from pipeline.verify.short import parse_hook
from verify.hooks.looking import Look


def test_a_command_with_the_expected_output_passes(subject: FakeSubject, look: Look) -> None:
    asked: list[Sequence[str]] = []

    def command(arguments: Sequence[str]) -> CommandResult:
        asked.append(arguments)
        return CommandResult(0, b"active\n", b"")

    subject.commands = command
    outcome = look(hook_of(parse_hook("guest:systemctl is-active 'my unit'=active")))
    assert (outcome.status, outcome.seen) == ("passed", "exit code 0, output 'active'")
    assert asked == [("systemctl", "is-active", "my unit")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "exit code 0"),
        ({"exit_code": 3, "output": "active"}, "'active'"),
        ({"exit_code": 3, "regex": "^act"}, "something like '^act'"),
    ],
)
def test_an_unexpected_end_is_shown_beside_what_was_expected(
    subject: FakeSubject, look: Look, settings: dict[str, object], expected: str
) -> None:
    subject.commands = lambda _arguments: CommandResult(3, b" inactive\n", b"no unit\n")
    outcome = look("guest", command="x", **settings)
    assert outcome.status == "failed"
    assert outcome.seen == f"exit code 3, output 'inactive', error 'no unit' (expected {expected})"


def test_no_agent_in_the_guest_is_no_pass(look: Look) -> None:
    with pytest.raises(Unsupported):
        look("guest", command="x")


def test_platforms_without_guest_agents_are_not_applicable(subject: FakeSubject, look: Look) -> None:
    subject.abilities = replace(ALL, guest=frozenset())
    assert look("guest", command="x").status == look("heartbeat").status == "not applicable"


def test_a_heartbeat_must_last_without_a_gap(subject: FakeSubject, look: Look) -> None:
    hook = hook_of(parse_hook("heartbeat:10s"))
    shown = []
    for second, beat in ((0, None), (5, True), (14, True), (16, False), (20, True), (29.9, True), (30, True)):
        subject.clock, subject.observation = float(second), Observation("on", heartbeat=beat)
        outcome = look(hook)
        shown.append((outcome.status, outcome.seen))
    assert shown == [
        ("failed", "no guest agent seen"),
        ("failed", "heartbeat for 0 s without a gap of 10 s"),
        ("failed", "heartbeat for 9 s without a gap of 10 s"),
        ("failed", "no heartbeat seen; it was there for 11 s"),
        ("failed", "heartbeat for 0 s without a gap of 10 s"),
        ("failed", "heartbeat for 10 s without a gap of 10 s"),
        ("passed", "heartbeat for 10 s without a gap"),
    ]
