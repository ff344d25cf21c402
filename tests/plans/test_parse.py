"""A plan that cannot be meant is refused: the error names the file, the key, and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from yaml import safe_dump

from pipeline.errors import UsageError
from pipeline.plans.document import read_yaml
from pipeline.plans.parse import parse_plan, parse_text
from plans.conftest import SHOP, shop


def refusal(document: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_plan(document, where="shop.yaml")
    assert caught.value.message.startswith("shop.yaml")
    assert caught.value.remedy
    return caught.value


def test_a_plan_is_read_and_has_its_defaults() -> None:
    plan, document = parse_text(safe_dump(SHOP), where="shop.yaml")
    assert document == SHOP
    assert plan.groups[0].machines == ("db", "web-1", "web-2")
    assert plan.group_of("web-2").name == "shop"
    assert plan.on_failure == "hold"
    assert plan.approvals.valid == 8 * 3600


def test_durations_have_days() -> None:
    plan = parse_plan(shop(deadlines={"conditions": "14d", "downtime": "30min"}), where="test")
    assert (plan.deadlines.conditions, plan.deadlines.downtime) == (14 * 86400, 1800)


@pytest.mark.parametrize(
    ("changed", "message", "remedy"),
    [
        ({"nmae": "x"}, "nmae is not known", "known there are format, name, target"),
        ({"name": "Shop"}, "name: string should match pattern", "plan schema"),
        ({"approvals": {"cutovr": True}}, "approvals.cutovr is not known", "cutover, gate, commit, valid"),
        ({"machines": {"db": {"need": []}}}, "machines.db.need is not known", "source, checks, needs, tags"),
        ({"machines": {"a/b": {}}}, "machines.a/b: the machine's name 'a/b' may not contain '/'", ""),
        ({"mapping": {"networks": {"*": {"nam": "x"}}}}, "nam is not known", "name, isolated, model"),
        ({"mapping": {"memory": 4}}, "mapping.memory: 4 has no unit", ""),
        ({"groups": [{"name": "shop"}]}, "groups[0].waves is missing", "name, waves, traffic, after"),
        ({"groups": [{"name": "shop", "waves": [[]]}]}, "groups[0].waves[0]: ", ""),
        ({"groups": [{"name": "\n", "waves": [["db"]]}]}, "groups[0].name: a name has one line", ""),
        ({"on_failure": "give up"}, "on_failure: input should be 'hold' or 'rollback'", ""),
        ({"deadlines": {"downtime": "soon"}}, "deadlines.downtime: 'soon' is not a duration", ""),
        ({"deadlines": {"downtime": 0}}, "deadlines.downtime: input should be greater than 0", ""),
        ({"schedule": {"exports": "daily"}}, "schedule.exports: input should be 'export'", ""),
    ],
)
def test_what_is_no_plan_is_named_by_its_key(changed: dict[str, Any], message: str, remedy: str) -> None:
    error = refusal(shop(**changed))
    assert message in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("changed", "message", "remedy"),
    [
        (
            {"groups": [{"name": "shop", "waves": [["db"], ["web-1", "web-2", "mail"]]}]},
            "groups.shop.waves[1]: there is no 'mail'",
            "db, web-1, web-2",
        ),
        (
            {"groups": [{"name": "shop", "waves": [["db"], ["web-1", "web-2", "db"]]}]},
            "groups.shop.waves[1]: db is in groups.shop.waves[0] already",
            "one wave of one group",
        ),
        (
            {
                "groups": [
                    {"name": "shop", "waves": [["db"], ["web-1", "web-2"]]},
                    {"name": "more", "waves": [["db"]]},
                ]
            },
            "groups.more.waves[0]: db is in groups.shop.waves[0] already",
            "one wave of one group",
        ),
        ({"groups": [{"name": "shop", "waves": [["db"]]}]}, "machines.web-1: it is in no group", "web-1, web-2"),
        (
            {"machines": {"db": {}, "web-1": {"needs": ["dbb"]}, "web-2": {}}},
            "machines.web-1.needs: there is no 'dbb'",
            "db, web-1",
        ),
        (
            {"machines": {"db": {"needs": ["web-1"]}, "web-1": {}, "web-2": {}}},
            "machines.db.needs: web-1 boots in a later wave than db",
            "earlier wave",
        ),
        (
            {"machines": {"db": {}, "web-1": {"needs": ["web-2"]}, "web-2": {"needs": ["web-1"]}}},
            "machines need each other: web-1 needs web-2 needs web-1",
            "needs",
        ),
        (
            {"machines": {"db": {"needs": ["db"]}, "web-1": {}, "web-2": {}}},
            "machines need each other: db needs db",
            "needs",
        ),
        (
            {
                "groups": [
                    {"name": "a", "waves": [["db"]], "after": ["b"]},
                    {"name": "b", "waves": [["web-1", "web-2"]], "after": ["a"]},
                ]
            },
            "groups wait for each other: a after b after a",
            "after",
        ),
        (
            {"groups": [{"name": "shop", "waves": [["db"], ["web-1", "web-2"]], "after": ["x"]}]},
            "groups.shop.after: there is no 'x'",
            "shop",
        ),
        (
            {"conditions": [{"name": "a", "kind": "flag", "settings": {"flag": "go"}}] * 2},
            "conditions: two are named 'a'",
            "",
        ),
        ({"mapping": {"machines": {"bd": {"cpus": 2}}}}, "mapping.machines: there is no 'bd'", "db, web-1"),
        (
            {
                "machines": {"caf\u00e9": {"needs": ["db"]}, "cafe\u0301": {}, "db": {}},
                "groups": [{"name": "shop", "waves": [["db"], ["caf\u00e9"]]}],
            },
            "machines: two are named 'caf\u00e9'",
            "",
        ),
    ],
)
def test_what_does_not_agree_is_refused(changed: dict[str, Any], message: str, remedy: str) -> None:
    error = refusal(shop(**changed))
    assert message in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("changed", "message", "remedy"),
    [
        ({"target": "moon"}, "target: 'moon' is no target", "qemu"),
        ({"source": {"kind": "moon"}}, "source.kind: 'moon' is no kind of source", "simulated"),
        ({"conditions": [{"name": "a", "kind": "moon"}]}, "conditions[0]: kind: 'moon' is no kind", "point-age"),
        (
            {"conditions": [{"name": "a", "kind": "point-age", "settings": {"younger": "1h", "older": 1}}]},
            "conditions[0]: settings.older is not known",
            "machines, younger",
        ),
        (
            {"conditions": [{"name": "a", "kind": "point-age", "settings": {"younger": "1h", "machines": ["x"]}}]},
            "conditions[0]: the condition is about x",
            "db, web-1",
        ),
        (
            {"groups": [{**SHOP["groups"][0], "traffic": [{"name": "t", "kind": "command", "settings": {}}]}]},
            "groups[0].traffic[0]: settings.open is missing",
            "open, close, observe",
        ),
        (
            {"machines": {**SHOP["machines"], "db": {"checks": [{"name": "a", "hook": "tcp"}]}}},
            "machines.db: check 'a': settings.port: is missing",
            "port",
        ),
        (
            {"machines": {**SHOP["machines"], "db": {"checks": [{"name": "a", "hook": "tpc"}]}}},
            "machines.db: check 'a': 'tpc' is not a hook",
            "tcp",
        ),
    ],
)
def test_kinds_are_known_here_and_their_settings_right(changed: dict[str, Any], message: str, remedy: str) -> None:
    error = refusal(shop(**changed))
    assert message in error.message
    assert remedy in error.remedy


def test_a_host_without_the_kinds_reads_a_plan_that_was_right_elsewhere() -> None:
    document = shop(target="moon", conditions=[{"name": "a", "kind": "tide"}])
    assert parse_plan(document, where="test", installed=False).conditions[0].kind == "tide"


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"source": {"kind": "simulated", "options": {"password": "hunter2"}}}, "source.options.password"),
        ({"source": {"kind": "simulated", "options": {"api-key": "hunter2"}}}, "source.options.api-key"),
        ({"mapping": {"options": {"vmware": {"password": "hunter2"}}}}, "mapping.options.vmware.password"),
        ({"conditions": [{"name": "a", "kind": "flag", "settings": {"auth_token": "hunter2"}}]}, "auth_token"),
        (
            {"machines": {**SHOP["machines"], "db": {"source": {"url": "https://me:hunter2@db"}}}},
            "machines.db.source.url",
        ),
    ],
)
def test_secrets_are_refused_and_not_repeated(changed: dict[str, Any], place: str) -> None:
    error = refusal(shop(**changed))
    assert place in error.message
    assert "hunter2" not in error.message + error.remedy


def test_where_a_secret_is_found_may_be_said() -> None:
    parse_plan(
        shop(source={"kind": "simulated", "options": {"password": {"variable": "PASSWORD"}, "token_file": "/t"}}),
        where="test",
    )


def test_yaml_keeps_words_words() -> None:
    found = read_yaml("a: [off, no, 22:00, 2026-12-24, 010, 0x10, 1e3, true, ~, '']\n1: x\n", where="test")
    assert found == {"a": ["off", "no", "22:00", "2026-12-24", 10, 16, 1000.0, True, None, ""], "1": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "the key 'a' stands twice"),
        ("machines: {db: {}, db: {}}", "the key 'db' stands twice"),
        ("a: [1\n", "cannot be understood"),
        ("a: !!python/object:os.system x\n", "cannot be understood"),
        ("a: .nan\n", "a is nan"),
        ("true: 1\n", "the key True: write it in quotes"),
        ("a: !!set {x}\n", "is a set"),
        ("a: !!binary aGk=\n", "is a bytes"),
        ("--- 1\n--- 2\n", "cannot be understood"),
        ("a: &a [*a]\n", "nested more than"),
        ("[" * 5000, "cannot be understood"),
        ("a: \x00\n", "cannot be understood"),
        ("x" * (1 << 20) + "xx", "characters"),
    ],
)
def test_text_that_is_no_document_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_yaml(text, where="shop.yaml")
    assert message in caught.value.message


def test_aliases_that_unfold_without_end_are_refused() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(UsageError, match="more than 100,000 values"):
        read_yaml(text, where="shop.yaml")


def test_merges_that_multiply_without_end_are_refused() -> None:
    text = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 99))
    with pytest.raises(UsageError, match="merges more than 100,000 values"):
        read_yaml(text, where="shop.yaml")


@pytest.mark.parametrize("document", [None, [], "shop", 5])
def test_what_is_no_mapping_is_no_plan(document: Any) -> None:
    assert "is no plan" in refusal(document).message
