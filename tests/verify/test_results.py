"""The verdict, and how it reads: as a table, as JSON, as JUnit XML."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.output import Output
from pipeline.verify.junit import junit_xml
from pipeline.verify.results import CheckResult, Results
from pipeline.verify.table import COLUMNS, NUMBERS, rows


def result(status: str, level: str = "required", name: str = "web", seen: str = "HTTP 503 'down'") -> CheckResult:
    return CheckResult(name, "http", level, status, seen, 3, 12.3456, (Path("/a/web.png"),))  # type: ignore[arg-type]


def results(*checks: CheckResult, ended: str = "") -> Results:
    return Results("web-1", checks, 20.5, ended)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (results(result("passed")), ""),
        (results(result("passed"), result("not applicable")), ""),
        (results(result("passed"), result("failed", "advisory")), ""),
        (results(result("passed", "advisory")), ""),
        (results(result("passed"), result("failed", name="db")), "db: failed"),
        (results(result("passed"), result("skipped", name="db"), result("error", name="x")), "db: skipped; x: error"),
        (results(result("not applicable")), "no required check applies"),
        (results(result("not applicable"), result("passed", "advisory")), "no required check applies"),
        (results(result("failed", "advisory")), "no check passed"),
        (results(), "nothing was checked"),
        (results(result("passed"), ended="the machine is off"), "the machine is off"),
    ],
)
def test_a_machine_is_verified_by_what_passed_and_never_by_what_did_not_apply(found: Results, why: str) -> None:
    assert found.why == why
    assert found.verified == (not why)


def test_json_has_all_of_it() -> None:
    values = json.loads(json.dumps(results(result("failed")).as_json()))
    assert values["verified"] is False
    assert values["why"] == "web: failed"
    assert values["checks"] == [
        {
            "name": "web",
            "hook": "http",
            "level": "required",
            "status": "failed",
            "seen": "HTTP 503 'down'",
            "attempts": 3,
            "seconds": 12.346,
            "artifacts": ["/a/web.png"],
        }
    ]


def test_the_table_has_one_line_a_check_and_nothing_that_moves_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(result("passed"), result("failed", "advisory", "mail", "\x1b[2J\x07line one\nline two"))
    Output().table(COLUMNS, rows(found), right=NUMBERS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "failed (advisory)" in lines[2]
    assert "line one line two [/a/web.png]" in lines[2]
    assert "\x1b" not in lines[2]


def parsed(document: bytes) -> ElementTree.Element:
    """The suite, after the structure that junit-10.xsd asks for has been checked."""
    root = ElementTree.fromstring(document)
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    properties, *cases = suite
    assert properties.tag == "properties"
    assert all(child.tag == "property" and {"name", "value"} == set(child.attrib) for child in properties)
    for case in cases:
        assert case.tag == "testcase"
        assert {"name", "classname", "time"} == set(case.attrib)
        float(case.attrib["time"])
        assert sum(child.tag in ("skipped", "error", "failure") for child in case) <= 1
        assert [child.tag for child in case if child.tag not in ("skipped", "error", "failure")] in (["system-out"], [])
    for element in (root, suite):
        assert int(element.attrib["tests"]) == len(cases)
        for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(element.attrib[attribute]) == sum(case.find(tag) is not None for case in cases)
    return suite


def cases(found: Results) -> dict[str, str]:
    """What each test case is to a server."""
    shown = {}
    for case in parsed(junit_xml(found)).iter("testcase"):
        kinds = [child.tag for child in case if child.tag != "system-out"]
        shown[case.attrib["name"]] = kinds[0] if kinds else "passed"
    return shown


def test_junit_says_what_each_check_was() -> None:
    found = results(
        result("passed", name="a"),
        result("failed", name="b"),
        result("error", name="c"),
        result("skipped", name="d"),
        result("not applicable", name="e"),
        result("failed", "advisory", name="f"),
    )
    assert cases(found) == {
        "a": "passed", "b": "failure", "c": "error", "d": "skipped", "e": "skipped", "f": "skipped",
        "verified": "failure",
    }  # fmt: skip
    suite = parsed(junit_xml(found, begun=datetime(2026, 11, 24, 10, 0, tzinfo=UTC)))
    assert suite.attrib["timestamp"] == "2026-11-24T10:00:00"
    failure = suite.find("testcase[@name='b']/failure")
    assert failure is not None
    assert failure.attrib["message"] == "HTTP 503 'down'"
    skipped = suite.find("testcase[@name='e']/skipped")
    assert skipped is not None
    assert skipped.attrib["message"].startswith("not applicable: ")


_CHECKS = st.builds(
    CheckResult,
    name=st.text(),
    hook=st.text(),
    level=st.sampled_from(["required", "advisory"]),
    status=st.sampled_from(["passed", "failed", "not applicable", "skipped", "error"]),
    seen=st.text(st.characters(exclude_categories=[])),
    attempts=st.integers(0, 1000),
    seconds=st.floats(0, 1e6),
)


@given(st.lists(_CHECKS, max_size=6), st.sampled_from(["", "the machine is off: \x1b[31mpanic"]), st.text())
def test_a_server_comes_to_our_verdict_whatever_was_seen(checks: list[CheckResult], ended: str, machine: str) -> None:
    found = Results(machine, tuple(checks), 1.0, ended)
    suite = parsed(junit_xml(found))
    green = suite.attrib["failures"] == suite.attrib["errors"] == "0"
    assert green == found.verified
