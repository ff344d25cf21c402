"""Results as JUnit XML, as continuous integration servers read it.

Format: the schema of Jenkins' xUnit plug-in (junit-10.xsd), which GitLab, GitHub actions and Azure read too:
testsuites > testsuite > properties, testcase > (skipped | error | failure), system-out.

The format knows no advisory check and no "not applicable"; both become `skipped` with the reason, so that the server's
verdict is ours. One more test case, `verified`, fails when the machine is not verified, whatever the reason.
"""

from __future__ import annotations

import re
from datetime import datetime
from xml.etree import ElementTree

from pipeline.verify.results import CheckResult, Results

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0, production 2 (Char)."""
VERDICT = "verified"


def junit_xml(results: Results, *, begun: datetime | None = None) -> bytes:
    """The document, in UTF-8. `begun` is when the checks began."""
    cases = [_case(results.machine, check) for check in results.checks]
    verdict = _element("testcase", classname=_class(results.machine), name=VERDICT, time="0.000")
    if results.why:
        verdict.append(_element("failure", text=results.why, message=results.why, type="not verified"))
    cases.append(verdict)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": f"{results.seconds:.3f}",
    }
    suite = _element("testsuite", name=results.machine, **counts)
    if begun is not None:
        suite.set("timestamp", begun.replace(tzinfo=None).isoformat(timespec="seconds"))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("machine", results.machine), ("ended", results.ended)):
        properties.append(_element("property", name=name, value=value))
    suite.extend(cases)
    root = _element("testsuites", name="failback", **counts)
    root.append(suite)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(machine: str, check: CheckResult) -> ElementTree.Element:
    case = _element("testcase", classname=_class(machine), name=check.name, time=f"{check.seconds:.3f}")
    if check.status in ("not applicable", "skipped"):
        case.append(_element("skipped", message=f"{check.status}: {check.seen}"))
    elif check.status != "passed" and check.level == "advisory":
        case.append(_element("skipped", message=f"advisory, {check.status}: {check.seen}"))
    elif check.status != "passed":
        kind = "failure" if check.status == "failed" else "error"
        case.append(_element(kind, text=check.seen, message=check.seen.partition("\n")[0], type=check.hook))
    # Jenkins' attachments plug-in and GitLab find files by such lines.
    files = "".join(f"\n[[ATTACHMENT|{path}]]" for path in check.artifacts)
    case.append(_element("system-out", text=f"{check.seen}\nattempts: {check.attempts}{files}"))
    return case


def _class(machine: str) -> str:
    """Servers split class names at dots."""
    return f"failback.{machine.replace('.', '_')}"


def _element(tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, {name: _clean(value) for name, value in attributes.items()})
    if text:
        element.text = _clean(text)
    return element


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
