"""What can be known beforehand is found for all machines at once, each finding with its remedy, and nothing changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.finding import Finding
from pipeline.plans.check import Found, check_plan
from pipeline.plans.parse import parse_plan
from pipeline.runs.ownership import advance, current
from plans.conftest import SHOP, Scene, shop

CHECK = {"name": "answers", "hook": "tcp", "settings": {"port": 22}}
GATE = {"name": "dns", "kind": "command", "settings": {"open": ["true"], "close": ["true"], "observe": ["true"]}}
WHOLE: dict[str, Any] = {
    "machines": {name: {**machine, "checks": [CHECK]} for name, machine in SHOP["machines"].items()},
    "groups": [{**SHOP["groups"][0], "traffic": [GATE]}],
}


def checked(scene: Scene, **changed: Any) -> list[Found]:
    scene.plan = parse_plan(shop(**(WHOLE | changed)), where="test")
    found = list(check_plan(scene.world()))
    for entry in found:
        assert entry.finding.remedy or entry.finding.severity != "error"
    return found


def of(found: list[Found], severity: str) -> list[tuple[str, str, str]]:
    return [(f.machine, f.finding.subject, f.finding.message) for f in found if f.finding.severity == severity]


def export_all(scene: Scene) -> None:
    for machine in SHOP["machines"]:
        scene.export(machine)


def test_a_plan_that_is_ready_has_nothing_to_mend(scene: Scene) -> None:
    export_all(scene)
    before = [info.key for info in scene.bench.store.list("")]
    found = checked(scene)
    assert of(found, "error") == of(found, "warning") == []
    forecasts = [f for f in of(found, "note") if f[1] == "forecast"]
    assert [f[0] for f in forecasts] == ["db", "web-1", "web-2"]
    assert "nothing is staged yet; to move for db@1: 192 KiB" in forecasts[0][2]
    assert [info.key for info in scene.bench.store.list("")] == before
    assert scene.platform.disks == {}
    assert not (scene.state / "places").exists()


def test_all_machines_are_looked_at_whatever_is_wrong_with_one(scene: Scene) -> None:
    scene.export("db")
    scene.export("web-2")
    scene.platform.networks.clear()
    scene.source.found["web-1"] = [Finding("error", "guest", "no agent answers", "install it")]
    errors = of(checked(scene), "error")
    assert ("db", "network lan", "there is no network lan") in errors
    assert ("web-1", "source: guest", "no agent answers") in errors
    assert ("web-2", "network lan", "there is no network lan") in errors
    assert len(errors) == 3


def test_a_machine_without_a_point_is_exported_by_the_run_if_anything_reads_it(scene: Scene) -> None:
    scene.export("db")
    scene.export("web-1")
    assert [w[:2] for w in of(checked(scene), "warning")] == [("web-2", "point")]
    scene.source.abilities = replace(scene.source.abilities, reads=False)
    assert [e[:2] for e in of(checked(scene), "error")] == [("web-2", "point")]


@pytest.mark.parametrize(
    ("changed", "severity", "message"),
    [
        ({"proof": "none"}, "warning", "cannot prove that the machine is off"),
        ({"locks": False}, "warning", "cannot keep the machine from starting"),
        ({"reads": False}, "warning", "gives no disks"),
        ({"changes": False}, "note", "does not know what changed"),
        ({"quiesce": "none"}, "note", "stops no services"),
    ],
)
def test_what_the_source_cannot_do_is_said_for_each_machine(
    scene: Scene, changed: dict[str, Any], severity: str, message: str
) -> None:
    export_all(scene)
    scene.source.abilities = replace(scene.source.abilities, **changed)
    assert [m for m, _subject, text in of(checked(scene), severity) if message in text] == ["db", "web-1", "web-2"]


def test_what_a_source_says_itself_is_not_said_twice(scene: Scene) -> None:
    export_all(scene)
    scene.source.abilities = replace(scene.source.abilities, proof="none", locks=False)
    scene.source.found["db"] = [Finding("warning", "lock", "no command is given", "give `lock`")]
    warnings = of(checked(scene), "warning")
    assert [subject for machine, subject, _text in warnings if machine == "db"] == ["source: lock", "source"]
    assert [subject for machine, subject, _text in warnings if machine == "web-1"] == ["source", "source"]


def test_a_source_that_does_not_answer_hides_nothing_of_the_target(scene: Scene) -> None:
    export_all(scene)
    scene.source.down = True
    found = checked(scene)
    assert [e[0] for e in of(found, "error")] == ["db", "web-1", "web-2"]
    assert len([f for f in of(found, "note") if f[1] == "forecast"]) == 3


def test_conditions_are_looked_at_once_and_waiting_is_no_error(scene: Scene) -> None:
    export_all(scene)
    found = checked(
        scene,
        conditions=[
            {"name": "go", "kind": "flag", "settings": {"flag": "go"}},
            {"name": "fresh", "kind": "point-age", "settings": {"younger": "1h"}},
            {"name": "night", "kind": "command", "when": "cutover", "settings": {"argv": ["false"]}},
        ],
    )
    assert of(found, "error") == []
    notes = {subject: text for _machine, subject, text in of(found, "note")}
    assert notes["condition go"] == "waiting: a person has to set flag go when there is a run"
    assert notes["condition fresh"].startswith("holds: db: newest point db@1")
    assert notes["condition night before a cutover"].startswith("waiting: ")
    assert notes["conditions"] == "a run would wait for 1 condition now"


def test_a_condition_that_can_never_hold_is_an_error(scene: Scene) -> None:
    export_all(scene)
    settings = {"argv": ["true"], "environment": ["NOT_THERE"]}
    found = checked(scene, conditions=[{"name": "x", "kind": "command", "settings": settings}])
    assert of(found, "error") == [("", "condition x", "the environment variable NOT_THERE is not set")]


@pytest.mark.parametrize(("asked", "severity"), [(False, "error"), (True, "warning")])
def test_a_store_without_conditional_put_has_no_unattended_cutover(scene: Scene, asked: bool, severity: str) -> None:
    export_all(scene)
    document = scene.bench.repository.document
    scene.bench.repository.document = replace(document, abilities={**document.abilities, "conditional_put": False})
    [found] = of(checked(scene, approvals={"cutover": asked}), severity)
    assert "no conditional PUT: two conductors could both believe that they own a machine" in found[2]


@pytest.mark.parametrize(("asked", "severity"), [(False, "error"), (True, "warning")])
def test_a_run_that_commits_by_itself_has_to_have_something_to_judge_by(
    scene: Scene, asked: bool, severity: str
) -> None:
    export_all(scene)
    machines = {**WHOLE["machines"], "db": {"checks": [CHECK | {"level": "advisory"}]}}
    found = checked(scene, approvals={"commit": asked}, machines=machines)
    assert [f[:2] for f in of(found, severity)] == [("db", "checks")]


def test_a_check_of_a_port_needs_a_network(scene: Scene) -> None:
    export_all(scene)
    found = checked(scene, mapping={"networks": {"*": None}})
    assert [e[:2] for e in of(found, "error")] == [(m, "check answers") for m in ("db", "web-1", "web-2")]


def test_what_crosses_the_sites_or_lets_users_in_too_early_is_said(scene: Scene) -> None:
    export_all(scene)
    groups = [
        {"name": "data", "waves": [["db"]], "traffic": [GATE]},
        {"name": "web", "waves": [["web-1", "web-2"]]},
    ]
    warnings = of(checked(scene, groups=groups), "warning")
    assert [w[:2] for w in warnings] == [("", "group web"), ("web-1", "needs"), ("web-2", "needs")]
    groups[1]["after"] = ["data"]
    assert [w[:2] for w in of(checked(scene, groups=groups), "warning")] == [("", "group web")]


def test_a_target_that_takes_whole_disks_alone_has_its_downtime_foretold(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_all(scene)
    from simulators.importer import SimulatedImporter
    from simulators.kinds import KINDS

    monkeypatch.setattr(
        "pipeline.home.site.open_importer",
        lambda _target, context: SimulatedImporter(context, scene.platform, replace(KINDS["like qemu"], patch="none")),
    )
    told = "simulated takes disks as a whole only: in the downtime all 192 KiB move again"
    assert [n[0] for n in of(checked(scene), "note") if told in n[2]] == ["db", "web-1", "web-2"]
    monkeypatch.setattr("pipeline.plans.check._SHORT", 1e-6)
    assert [w[0] for w in of(checked(scene), "warning") if told in w[2]] == ["db", "web-1", "web-2"]


def test_traffic_that_the_target_cannot_steer_is_an_error(scene: Scene) -> None:
    export_all(scene)
    wires = {"name": "wires", "kind": "port-group", "settings": {"open": "lan"}}
    address = {"machine": "web-1", "address": "192.0.2.10/24", "interface": "eth0"}
    inside = {"name": "inside", "kind": "guest-address", "settings": address}
    errors = of(checked(scene, groups=[{**SHOP["groups"][0], "traffic": [wires, inside]}]), "error")
    asked = [("db", "wires: networks"), ("web-1", "wires: networks"), ("web-1", "inside: guest")]
    asked.append(("web-2", "wires: networks"))
    assert [e[:2] for e in errors] == [(machine, f"traffic {subject}") for machine, subject in asked]


def test_programs_that_are_not_here_are_named(scene: Scene) -> None:
    export_all(scene)
    gate = {"name": "dns", "kind": "command", "settings": {"open": ["/not/there"], "close": ["true"]}}
    found = checked(scene, groups=[{**SHOP["groups"][0], "traffic": [gate]}])
    assert of(found, "warning") == [("", "traffic dns", "/not/there is not installed on this host, or not executable")]
    assert ("", "traffic dns", "it has no `observe`: nobody can say whether users are let in") in of(found, "note")


def test_a_rehearsal_that_is_asked_for_has_to_be_possible(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    export_all(scene)
    from simulators.importer import SimulatedImporter
    from simulators.kinds import KINDS

    monkeypatch.setattr(
        "pipeline.home.site.open_importer",
        lambda _target, context: SimulatedImporter(context, scene.platform, replace(KINDS["like qemu"], layer="none")),
    )
    assert of(checked(scene), "error") == []
    errors = of(checked(scene, rehearsal={"before_cutover": True}), "error")
    assert [e[:2] for e in errors] == [("db", "rehearsal"), ("web-1", "rehearsal"), ("web-2", "rehearsal")]


def test_a_machine_that_is_home_already_is_named(scene: Scene) -> None:
    export_all(scene)
    repository = scene.bench.repository
    moving = advance(repository, current(repository, "db"), "moving", run="shop-1", proof={})
    [error] = of(checked(scene), "error")
    assert error[:2] == ("db", "ownership")
    assert "it is moving, by run shop-1" in error[2]
    home = advance(repository, moving, "home-provisional", run="shop-1", proof={"seen": "it is off"})
    home = advance(repository, home, "home-committed", run="shop-1", proof={})
    [found] = [f.finding for f in checked(scene) if f.finding.severity == "error"]
    assert "`failback run reown db --reason WHY`" in found.remedy
    advance(repository, home, "takeover", run="", proof={"seen": "it is off"})
    assert of(checked(scene), "error") == []
