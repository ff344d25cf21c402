"""Checks run side by side, patiently, in order, and end when the machine does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.clock import FakeClock
from simulators.probe_hook import Script, installed, probe
from simulators.subject import FakeSubject

from pipeline.errors import Cancelled, TargetError, Unsupported, UsageError
from pipeline.progress import Watch, ignore
from pipeline.target import Observation
from pipeline.verify.checks import Check
from pipeline.verify.hook import Attempt, Outcome, failed, not_applicable, passed
from pipeline.verify.results import CheckResult, Results
from pipeline.verify.retry import Retry
from pipeline.verify.runner import GRACE_SECONDS, run_checks
from pipeline.verify.subject import Subject


class Told:
    """A Control that keeps what it is told and cancels on request."""

    watch: Watch = staticmethod(ignore)

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.cancel = threading.Event()

    def check(self) -> None:
        if self.cancel.is_set():
            raise Cancelled("the user wants to stop")

    def tell(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def probe_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with installed(tmp_path / "site", monkeypatch, probe="simulators.probe_hook:ProbeHook"):
        yield


@pytest.fixture
def subject(tmp_path: Path) -> FakeSubject:
    return FakeSubject(tmp_path)


def test_what_is_waited_for_is_shown(subject: FakeSubject) -> None:
    control, seen = Told(), list[str]()
    control.watch = lambda counters: seen.append(f"{counters.phase} {counters.disk}")

    def third_time(_subject: Subject, attempt: Attempt) -> Outcome:
        return passed("up") if attempt.number == 3 else failed("not yet")

    checks = [
        probe("login", third_time),
        probe("shop", always(passed("open"))),
        probe("mail", third_time, after=("login",)),
    ]
    assert run_checks(checks, subject, control, clock=FakeClock()).verified
    assert seen == ["waiting for login, shop", "waiting for login", "waiting for mail"]


def always(outcome: Outcome) -> Script:
    return lambda _subject, _attempt: outcome


def run(
    subject: Subject, *checks: Check, clock: FakeClock | None = None, deadline: float | None = None, parallel: int = 8
) -> Results:
    return run_checks(checks, subject, Told(), clock=clock or FakeClock(), deadline=deadline, parallel=parallel)


def only(results: Results) -> CheckResult:
    (result,) = results.checks
    return result


def test_a_check_that_passes_verifies_the_machine(subject: FakeSubject, tmp_path: Path) -> None:
    results = run(subject, probe("up", always(passed("it is up", tmp_path / "picture.png"))))
    assert results.verified
    assert only(results) == CheckResult(
        "up", "probe", "required", "passed", "it is up", 1, 0.0, (tmp_path / "picture.png",)
    )


def test_a_failed_attempt_is_repeated_with_growing_pauses_until_it_passes(subject: FakeSubject) -> None:
    clock, times = FakeClock(), []

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        times.append(clock.now())
        return passed("now") if attempt.number == 5 else failed("not yet")

    check = probe("slow", script, retry=Retry(interval=1, factor=2, max=3))
    result = only(run(subject, check, clock=clock))
    assert times == [0, 1, 3, 6, 9]
    assert (result.status, result.attempts, result.seconds) == ("passed", 5, 9)


def test_a_check_is_given_up_at_its_own_end_and_says_what_the_last_attempt_saw(subject: FakeSubject) -> None:
    check = probe(
        "never", lambda _s, attempt: failed(f"look {attempt.number}"), within=10, retry=Retry(interval=4, factor=1)
    )
    result = only(run(subject, check))
    assert (result.status, result.seen, result.attempts) == ("failed", "look 3", 3)


def test_without_patience_there_is_one_attempt_with_all_its_time(subject: FakeSubject) -> None:
    seconds = []

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        seconds.append(attempt.seconds)
        return failed("no")

    assert only(run(subject, probe("once", script, within=0, timeout=7))).attempts == 1
    assert seconds == [7]


def test_a_final_failure_is_not_repeated(subject: FakeSubject) -> None:
    assert only(run(subject, probe("final", always(Outcome("failed", "no client", final=True))))).attempts == 1


def test_what_is_not_applicable_is_not_repeated_and_verifies_nothing(subject: FakeSubject) -> None:
    results = run(subject, probe("ping", always(not_applicable("isolated"))))
    assert (only(results).status, only(results).attempts) == ("not applicable", 1)
    assert results.why == "no required check applies"


def test_checks_wait_for_those_they_depend_on(subject: FakeSubject) -> None:
    order: list[str] = []

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        order.append(attempt.check)
        return failed("not yet") if (attempt.check, attempt.number) == ("a", 1) else passed("fine")

    run(subject, probe("c", script, after=["b"]), probe("b", script, after=["a"]), probe("a", script))
    assert order == ["a", "a", "b", "c"]


def test_what_depends_on_a_failed_check_is_skipped_and_so_is_what_depends_on_that(subject: FakeSubject) -> None:
    results = run(
        subject,
        probe("a", always(failed("no")), within=0),
        probe("b", always(passed("yes")), after=["a"]),
        probe("c", always(passed("yes")), after=["b"]),
        probe("d", always(passed("yes"))),
    )
    assert [(c.status, c.attempts) for c in results.checks] == [
        ("failed", 1),
        ("skipped", 0),
        ("skipped", 0),
        ("passed", 1),
    ]
    assert results.checks[1].seen == "depends on a, which failed"
    assert results.checks[2].seen == "depends on b, which was skipped"


def test_what_depends_on_a_check_that_does_not_apply_is_looked_at(subject: FakeSubject) -> None:
    results = run(subject, probe("a", always(not_applicable("no"))), probe("b", always(passed("yes")), after=["a"]))
    assert results.checks[1].status == "passed"
    assert results.verified


def test_checks_run_side_by_side(subject: FakeSubject) -> None:
    together = threading.Barrier(3, timeout=20)

    def script(_subject: Subject, _attempt: Attempt) -> Outcome:
        together.wait()
        return passed("met the others")

    assert run(subject, *(probe(name, script) for name in "abc")).verified


def test_no_more_attempts_run_at_a_time_than_allowed(subject: FakeSubject) -> None:
    lock, running, most = threading.Lock(), 0, 0
    pair = threading.Barrier(2, timeout=20)

    def script(_subject: Subject, _attempt: Attempt) -> Outcome:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        pair.wait()
        with lock:
            running -= 1
        return passed("")

    assert run(subject, *(probe(name, script) for name in "abcdef"), parallel=2).verified
    assert most == 2


def test_a_check_that_waits_for_its_next_attempt_holds_nobody_up(subject: FakeSubject) -> None:
    clock = FakeClock()
    results = run(
        subject,
        probe("slow", always(failed("no")), within=100, retry=Retry(interval=50)),
        probe("quick", always(passed("yes"))),
        clock=clock,
        parallel=1,
    )
    assert results.checks[1].seconds == 0


def test_a_bug_in_a_hook_is_an_error_of_that_check_alone(
    subject: FakeSubject, caplog: pytest.LogCaptureFixture
) -> None:
    def script(_subject: Subject, _attempt: Attempt) -> Outcome:
        raise KeyError("colour")

    results = run(subject, probe("buggy", script), probe("good", always(passed("yes"))))
    assert [c.status for c in results.checks] == ["error", "passed"]
    assert results.checks[0].seen == "bug in the hook probe: KeyError: 'colour'"
    assert results.checks[0].attempts == 1
    assert "Traceback" in caplog.text
    assert results.why == "buggy: error"


def test_a_platform_that_refuses_is_a_failed_attempt_and_asked_again(subject: FakeSubject) -> None:
    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        if attempt.number == 1:
            raise TargetError("the platform is busy")
        if attempt.number == 2:
            raise Unsupported("no agent in the guest yet")
        return passed("yes")

    assert only(run(subject, probe("patient", script))).attempts == 3


def test_a_check_that_is_set_up_wrongly_is_an_error_with_its_remedy(subject: FakeSubject) -> None:
    def script(_subject: Subject, _attempt: Attempt) -> Outcome:
        raise UsageError("the variable X is not set", remedy="export X")

    result = only(run(subject, probe("wrong", script)))
    assert (result.status, result.attempts) == ("error", 1)
    assert "export X" in result.seen


def test_a_hook_that_hangs_is_left_behind(subject: FakeSubject) -> None:
    over = threading.Event()

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        over.wait(60)
        return passed("too late")

    results = run(
        subject, probe("hangs", script, timeout=30), probe("good", always(passed("yes"))), clock=FakeClock(0.05)
    )
    over.set()
    assert [c.status for c in results.checks] == ["error", "passed"]
    assert results.checks[0].seen == "the hook probe did not come back within 30 s"
    assert results.checks[0].seconds == pytest.approx(30 + GRACE_SECONDS)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Observation("off", reason="guest shutdown"), "the machine is off: guest shutdown"),
        (Observation("off"), "the machine is off"),
        (Observation("paused", reason="guest panicked"), "the machine is paused: guest panicked"),
        (Observation("paused", reason="I/O error"), "the machine is paused: I/O error"),
        (
            Observation("on", console="ok\r\n[    2.1][   T1] Kernel panic - not syncing: VFS: no root\r\n"),
            "the guest panicked: Kernel panic - not syncing: VFS: no root",
        ),
    ],
)
def test_a_machine_that_goes_down_ends_the_checks(subject: FakeSubject, seen: Observation, why: str) -> None:
    clock = FakeClock()

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        if attempt.number == 2:
            subject.observation = seen
        return failed("nothing there")

    results = run(
        subject,
        probe("done", always(passed("yes"))),
        probe("tried", script, within=1000),
        probe("waiting", always(passed("yes")), after=["tried"]),
        clock=clock,
    )
    assert results.ended == results.why == why
    assert not results.verified
    assert [c.status for c in results.checks] == ["passed", "failed", "skipped"]
    assert results.checks[1].seen == f"{why}; before: nothing there"
    assert clock.now() < 10


def test_a_moment_of_pause_and_a_platform_that_cannot_be_asked_do_not_end_the_checks(subject: FakeSubject) -> None:
    looks = iter([Observation("paused"), Observation("on"), None, Observation("paused")])

    class Flickering(FakeSubject):
        def observe(self) -> Observation:
            seen = next(looks, Observation("on"))
            if seen is None:
                raise TargetError("the platform restarts")
            return seen

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        return passed("yes") if attempt.number == 10 else failed("no")

    assert run(Flickering(subject.artifacts), probe("ten", script, retry=Retry(interval=1, factor=1))).verified


def test_a_mention_of_a_panic_is_no_panic(subject: FakeSubject) -> None:
    subject.observation = Observation("on", console="echo see also: Kernel panic - not syncing\n")
    assert run(subject, probe("up", always(passed("yes")))).verified


def test_a_console_full_of_brackets_is_looked_through_in_no_time(subject: FakeSubject) -> None:
    began = time.monotonic()
    subject.observation = Observation("on", console="[]\n" * 40_000)
    assert run(subject, probe("up", always(passed("yes")))).verified
    assert time.monotonic() - began < 5, "its time grows with the square of its length"


def test_all_checks_together_have_a_deadline(subject: FakeSubject) -> None:
    clock, seconds = FakeClock(), []

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        seconds.append(attempt.seconds)
        return failed("no")

    results = run(subject, probe("long", script, within=1000), clock=clock, deadline=20)
    assert results.ended == "the checks had 20 s"
    assert only(results).seen == "the checks had 20 s; before: no"
    assert clock.now() == 20
    assert seconds[0] == 20  # not the 30 of the check


def test_cancelling_ends_what_runs_and_passes_the_reason_on(subject: FakeSubject) -> None:
    control, ended = Told(), threading.Event()

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        control.cancel.set()
        assert attempt.cancelled.wait(60)
        ended.set()
        return failed("cancelled")

    with pytest.raises(Cancelled):
        run_checks([probe("long", script)], subject, control)
    assert ended.is_set()


def test_progress_is_told_as_checks_end(subject: FakeSubject) -> None:
    control = Told()
    run_checks([probe("up", always(passed("it is up")))], subject, control, clock=FakeClock())
    assert control.lines == ["up: passed: it is up"]


def test_nothing_runs_when_a_check_is_set_up_wrongly(subject: FakeSubject) -> None:
    ran = threading.Event()

    def script(_subject: Subject, _attempt: Attempt) -> Outcome:
        ran.set()
        return passed("")

    with pytest.raises(UsageError, match="nowhere"):
        run(subject, probe("a", script), probe("b", script, after=["nowhere"]))
    assert not ran.is_set()


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, list[str], str]]:
    """Checks in a shuffled order, each with dependencies on earlier ones and what it finds."""
    count = draw(st.integers(1, 7))
    names = [f"check {number}" for number in range(count)]
    statuses = st.sampled_from(["passed", "failed", "not applicable"])
    made = [
        (name, draw(st.lists(st.sampled_from(names[:n]), unique=True)) if n else [], draw(statuses))
        for n, name in enumerate(names)
    ]
    return draw(st.permutations(made))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs(), st.integers(1, 4))
def test_order_and_dependencies_hold_for_any_graph(
    subject: FakeSubject, graph: list[tuple[str, list[str], str]], parallel: int
) -> None:
    lock, settled = threading.Lock(), set[str]()
    found = {name: replace(passed("seen"), status=status) for name, _, status in graph}
    before = {name: after for name, after, _ in graph}

    def script(_subject: Subject, attempt: Attempt) -> Outcome:
        with lock:
            assert settled.issuperset(before[attempt.check])
            settled.add(attempt.check)
        return found[attempt.check]

    checks = [probe(name, script, after=after, within=0) for name, after, _ in graph]
    results = {result.name: result.status for result in run(subject, *checks, parallel=parallel).checks}
    assert list(results) == [name for name, _, _ in graph]
    for name, after, status in graph:
        held_up = any(results[other] in ("failed", "skipped") for other in after)
        assert results[name] == ("skipped" if held_up else status)
