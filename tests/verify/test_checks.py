"""Lists of checks and their short forms: what is right is understood, what is wrong is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from simulators.probe_hook import installed

from pipeline.errors import UsageError
from pipeline.verify.checks import hook_of, load_checks, ports_of
from pipeline.verify.registry import hook_class, hook_names
from pipeline.verify.retry import Retry
from pipeline.verify.short import parse_hook, split_expected

EXAMPLE = """
checks:
  - name: login prompt
    hook: console
    settings: {text: "login:"}
  - name: shop answers
    hook: https
    settings: {port: 443, host: shop.example.com, path: /health, status: 200}
    after: [login prompt]
    timeout: 10s
    within: 5min
    retry: {interval: 2s, factor: 1.5, max: 30s}
  - name: mail goes out
    hook: tcp
    settings: {port: 25}
    level: advisory
"""


def load(text: str) -> Any:
    return load_checks(yaml.safe_load(text), "plan.yaml")


def test_a_list_of_checks_is_read() -> None:
    prompt, shop, mail = load(EXAMPLE)
    assert (prompt.level, prompt.timeout, prompt.within, prompt.after) == ("required", 30, 300, ())
    assert (shop.timeout, shop.within, shop.after) == (10, 300, ("login prompt",))
    assert shop.retry == Retry(interval=2, factor=1.5, max=30)
    assert hook_of(shop).settings.status == (200,)
    assert mail.level == "advisory"
    assert ports_of([prompt, shop, mail]) == (25, 443)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "plan.yaml has no list 'checks'"),
        ("checks: {}", "plan.yaml has no list 'checks'"),
        ("checks: []", "plan.yaml has no list 'checks'"),
        ("checks: [tcp]", r"plan.yaml: checks\[0\] is not a mapping"),
        ("checks: [{name: a}]", r"plan.yaml: checks\[0\].hook: is missing"),
        ("checks: [{name: a, hook: picture}, {name: b, hook: picture, afer: [a]}]", r"checks\[1\].afer: is not known"),
        ("checks: [{name: a, hook: tpc}]", "plan.yaml: check 'a': 'tpc' is not a hook"),
        ("checks: [{name: a, hook: tcp}]", "plan.yaml: check 'a': settings.port: is missing"),
        ("checks: [{name: a, hook: tcp, settings: {port: 70000}}]", "check 'a': settings.port: .*65535"),
        ("checks: [{name: a, hook: tcp, settings: {port: 1, baner: x}}]", "settings.baner: is not known"),
        ("checks: [{name: a, hook: tcp, settings: {port: 1, banner: '('}}]", "settings.banner: '.' is not a regular"),
        ("checks: [{name: a, hook: picture, timeout: 10 parsecs}]", r"checks\[0\].timeout: '10 parsecs' is not a dur"),
        ("checks: [{name: a, hook: picture, timeout: 0}]", r"checks\[0\].timeout: .*greater than 0"),
        ("checks: [{name: a, hook: picture, retry: {factor: 0.5}}]", r"checks\[0\].retry.factor: "),
        ("checks: [{name: a, hook: picture, level: optional}]", r"checks\[0\].level: .*'required' or 'advisory'"),
        ("checks: [{name: a, hook: picture}, {name: a, hook: ping}]", "plan.yaml: two checks are named 'a'"),
        ("checks: [{name: a, hook: picture, after: [b]}]", "check 'a' comes after 'b', which is not there"),
        ("checks: [{name: a, hook: picture, after: [a]}]", "wait for each other: 'a' after 'a'"),
        (
            "checks: [{name: a, hook: ping, after: [b]}, {name: b, hook: ping, after: [c]}, "
            "{name: c, hook: ping, after: [a]}]",
            "wait for each other: .* after .* after .* after",
        ),
        ("checks: [{name: a, hook: https, settings: {port: 443}}]", "`host` is missing"),
        ("checks: [{name: a, hook: http, settings: {port: 80, certificate: false}}]", "use the hook `https`"),
        ("checks: [{name: a, hook: ssh, settings: {user: u, command: id}}]", "either `host_key`.*or `accept_new"),
        ("checks: [{name: a, hook: ssh, settings: {user: -u, command: id, accept_new: true}}]", "settings.user: "),
        ("checks: [{name: a, hook: exec, settings: {path: /nowhere/x}}]", "settings.path: /nowhere/x is not an exec"),
        ("checks: [{name: a, hook: console, settings: {text: a, regex: b}}]", "either `text` or `regex`"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "hook", "settings"),
    [
        ("tcp:22", "tcp", {"port": 22}),
        ("tcp:22:^SSH-2.0", "tcp", {"port": 22, "banner": "^SSH-2.0"}),
        ("http:80/health=200", "http", {"port": 80, "path": "/health", "status": "200"}),
        ("http:8080", "http", {"port": 8080, "path": "/"}),
        ("http:80/find?q=1", "http", {"port": 80, "path": "/find?q=1"}),
        ("http:80/find?q=1=200,404", "http", {"port": 80, "path": "/find?q=1", "status": "200,404"}),
        ("https:a.example@443/=301", "https", {"port": 443, "path": "/", "status": "301", "host": "a.example"}),
        ("console:login:", "console", {"text": "login:"}),
        ("console:/log.n: $/", "console", {"regex": "log.n: $"}),
        ("console", "console", {}),
        ("picture", "picture", {"not_blank": False}),
        ("picture:not-blank", "picture", {"not_blank": True}),
        ("ping", "ping", {}),
        ("ping:3", "ping", {"count": "3"}),
        ("heartbeat:30s", "heartbeat", {"stable": "30s"}),
        ("guest:id -u=0", "guest", {"command": "id -u", "output": "0"}),
        (
            "ssh:admin@22:systemctl is-active nginx=active",
            "ssh",
            {
                "user": "admin",
                "port": 22,
                "accept_new": True,
                "command": "systemctl is-active nginx",
                "output": "active",
            },
        ),
        ("ssh:u@2222:'A=1 env'", "ssh", {"user": "u", "port": 2222, "accept_new": True, "command": "A=1 env"}),
        ("exec:/bin/true", "exec", {"path": "/bin/true", "arguments": [], "ports": []}),
        (
            "exec:5432,53@/bin/echo a 'b c'",
            "exec",
            {"path": "/bin/echo", "arguments": ["a", "b c"], "ports": [5432, 53]},
        ),
    ],
)
def test_short_forms_are_understood(text: str, hook: str, settings: dict[str, Any]) -> None:
    check = parse_hook(text)
    assert (check.name, check.hook, check.settings) == (text, hook, settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp", "'' is not a port"),
        ("tcp:x", "'x' is not a port"),
        ("tcp:²", "'²' is not a port"),
        ("tcp:22:", "banner is empty"),
        ("tcp:22:(", "not a regular expression"),
        ("http:80health", "'80health' is not a port"),
        ("http:@80", "host is empty"),
        ("https:443/", "`host` is missing"),
        ("ssh:22:id", "'22' is not USER@PORT"),
        ("ssh:u@22", "command is missing"),
        ("ssh:u@22,kay=/x:id", "is not key=FILE"),
        ("ssh:u@22,key=/nowhere:id", "/nowhere is not a file"),
        ("ssh:u@22:'id", "quoted command has no end"),
        ("exec:", "path is missing"),
        ("exec:'", "No closing quotation"),
        ("picture:blank", "'blank' is not known"),
        ("heartbeat:soon", "'soon' is not a duration"),
    ],
)
def test_a_wrong_short_form_is_refused_with_the_right_form(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_hook(text)
    assert text in caught.value.message
    assert hook_class(text.partition(":")[0]).form in caught.value.remedy


def test_an_unknown_hook_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(UsageError, match="'telnet' is not a hook") as caught:
        parse_hook("telnet:23")
    for name in ("console", "exec", "guest", "heartbeat", "http", "https", "picture", "ping", "ssh", "tcp"):
        assert name in caught.value.remedy


@given(st.one_of(st.text(), st.tuples(st.sampled_from(hook_names()), st.text()).map(":".join)))
def test_any_text_is_a_check_or_an_error_of_its_user(text: str) -> None:
    with contextlib.suppress(UsageError):
        hook_of(parse_hook(text))


COMMANDS = st.text(st.characters(exclude_characters="'\"=\0", exclude_categories=["Cs"]), min_size=1)


@given(COMMANDS, st.none() | st.text(st.characters(exclude_characters="=")))
def test_a_command_and_what_it_should_print_come_apart_again(command: str, expected: str | None) -> None:
    assert split_expected(command if expected is None else f"{command}={expected}") == (command, expected)


@given(st.text(st.characters(exclude_characters="'")), st.none() | st.text())
def test_a_quoted_command_may_hold_anything_but_its_quote(command: str, expected: str | None) -> None:
    text = f"'{command}'" + ("" if expected is None else f"={expected}")
    assert split_expected(text) == (command, expected)


@given(st.integers(1, 65535), st.from_regex(r"\A(/[a-z0-9=?&.]{0,20})?\Z"), st.lists(st.integers(100, 599), min_size=1))
def test_address_path_and_status_come_apart_again(port: int, path: str, status: list[int]) -> None:
    settings = hook_of(parse_hook(f"http:h.example@{port}{path}={','.join(map(str, status))}")).settings
    assert (settings.port, settings.path, settings.status) == (port, path or "/", tuple(status))


def test_a_long_command_has_a_name_of_its_own_by_its_beginning() -> None:
    first, second = (parse_hook(f"guest:'{'x' * 300}{end}'=active") for end in "ab")
    assert len(first.name) == len(second.name) == 200
    assert first.name.startswith("guest:'xxx")
    assert first.name != second.name


@given(st.floats(0, 60), st.floats(1, 10), st.floats(0, 600), st.integers(1, 40))
def test_pauses_grow_up_to_their_bound(interval: float, factor: float, most: float, attempts: int) -> None:
    retry = Retry(interval=interval, factor=factor, max=most)
    delays = [retry.delay(n) for n in range(1, attempts + 1)]
    assert delays == sorted(delays)
    assert delays[0] == min(interval, most)
    assert delays[-1] == pytest.approx(min(most, interval * factor ** (attempts - 1)))


def test_a_hook_of_another_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(tmp_path, monkeypatch, probe="simulators.probe_hook:ProbeHook"):
        assert parse_hook("probe:x").settings == {"script": "x"}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    hooks = {"gone": "no_such_module_anywhere:Hook", "wrong": "pathlib:Path", "tcp": "simulators.probe_hook:ProbeHook"}
    with installed(tmp_path, monkeypatch, **hooks):
        yield


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gone", "cannot be loaded from no_such_module_anywhere:Hook"),
        ("wrong", "pathlib:Path is not a subclass"),
        ("tcp:22", "several packages have a hook 'tcp'"),
    ],
)
@pytest.mark.usefixtures("broken")
def test_a_broken_package_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_hook(text)
