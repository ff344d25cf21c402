"""Traffic steps let users in and keep them out, and say which it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from manifests.machine import Machine
from pipeline.errors import TargetError, TargetUnavailable, Unsupported, UsageError
from pipeline.home.control import Controller
from pipeline.place import CommandResult, Observation
from pipeline.plans.agree import traffic_of
from pipeline.plans.model import Plan, TrafficStep
from pipeline.plans.traffic import Gate, Way
from pipeline.target import Build, Importer
from pipeline.wanted import Network, Wanted
from plans.conftest import shop


def step(kind: str, **settings: Any) -> Gate[Any]:
    return traffic_of(TrafficStep(name="test", kind=kind, settings=settings))


def nobody(machine: str) -> tuple[Importer, Build]:
    raise TargetError(f"{machine} is not there")


def way(at_home: Callable[[str], tuple[Importer, Build]] = nobody) -> Way:
    variables = {"FAILBACK_RUN": "shop-1", "FAILBACK_GROUP": "shop", "FAILBACK_EPOCH": "4", "FAILBACK_MACHINES": "db"}
    return Way("shop", "shop-1", Controller(), at_home, variables)


@pytest.fixture
def switch(tmp_path: Path) -> str:
    """A program with one argument: what it is to do with a file that stands for the world."""
    path = tmp_path / "switch"
    path.write_text(
        f"""#!/bin/sh
world={tmp_path}/world
case $1 in
open) echo open >$world; echo "opened for $FAILBACK_GROUP ($FAILBACK_RUN, $FAILBACK_EPOCH)";;
close) rm -f $world; echo closed;;
observe) if [ -e $world ]; then echo open; else echo closed; fi;;
*) echo "what is $1?" >&2; exit 9;;
esac
"""
    )
    path.chmod(0o755)
    return str(path)


def test_a_program_opens_closes_and_says_which(switch: str) -> None:
    gate = step("command", open=[switch, "open"], close=[switch, "close"], observe=[switch, "observe"])
    assert gate.observe(way()) == "closed"
    for _again in range(2):
        assert "opened for shop (shop-1, 4)" in gate.open(way())
        assert gate.observe(way()) == "open"
    for _again in range(2):
        gate.close(way())
        assert gate.observe(way()) == "closed"


def test_a_program_that_fails_has_not_opened(switch: str) -> None:
    gate = step("command", open=[switch, "xyz"], close=[switch, "close"], observe=[switch, "xyz"])
    with pytest.raises(TargetError, match=r"ended with 9: what is xyz\?"):
        gate.open(way())
    assert gate.observe(way()) == "unknown"


def test_without_a_program_that_looks_nobody_can_say(switch: str) -> None:
    gate = step("command", open=[switch, "open"], close=[switch, "close"])
    gate.open(way())
    assert gate.observe(way()) == "unknown"
    assert step("command", open=["x"], close=["x"], observe=["echo", "perhaps"]).observe(way()) == "unknown"


def test_both_ways_have_to_be_said() -> None:
    with pytest.raises(UsageError, match=r"settings\.close is missing"):
        step("command", open=["true"])
    with pytest.raises(UsageError, match=r"settings\.open: "):
        step("command", open=[], close=["true"])


class Guest:
    """A machine at home: its agent runs programs, here in a network of their own."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.power: Any = "on"
        self.agent = True

    def observe(self, build: Build) -> Observation:
        return Observation(self.power)

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        if not self.agent:
            raise Unsupported("no guest agent answers")
        inside = ["nsenter", "--net", "--target", str(self.process), "--", *arguments]
        done = subprocess.run(inside, input=stdin, capture_output=True, timeout=seconds, check=False)
        return CommandResult(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def guest() -> Iterator[Guest]:
    try:
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 300"], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        ready = process.stdout.readline()
    except OSError:
        ready = b""
    if not ready:
        pytest.skip("no network namespaces here")
    yield Guest(process.pid)
    process.kill()
    process.communicate()


def there(guest: object) -> Callable[[str], tuple[Importer, Build]]:
    return lambda machine: (guest, Build(uuid4(), "production", machine))  # type: ignore[return-value]


ADDRESS = {"machine": "db", "address": "192.0.2.10/24", "interface": "lo"}


def test_an_address_is_put_on_in_the_guest_and_taken_off(guest: Guest) -> None:
    gate, at = step("guest-address", **ADDRESS), way(there(guest))
    assert gate.observe(at) == "closed"
    assert "is not on lo of db" in gate.close(at)
    for _again in range(2):
        assert "192.0.2.10/24 is on lo of db" in gate.open(at)
        assert gate.observe(at) == "open"
    assert "was taken off" in gate.close(at)
    assert "is not on" in gate.close(at)
    assert gate.observe(at) == "closed"


def test_other_addresses_of_the_guest_stay(guest: Guest) -> None:
    gate, at = step("guest-address", **ADDRESS), way(there(guest))
    other = step("guest-address", **(ADDRESS | {"address": "192.0.2.1/24"}))
    other.open(at)
    assert gate.observe(at) == "closed"
    gate.open(at)
    gate.close(at)
    assert other.observe(at) == "open"


def test_what_is_wrong_in_the_guest_is_told(guest: Guest) -> None:
    gate, at = step("guest-address", **(ADDRESS | {"interface": "eth9"})), way(there(guest))
    with pytest.raises(TargetError, match="eth9"):
        gate.open(at)
    assert gate.observe(at) == "unknown"
    guest.agent = False
    with pytest.raises(Unsupported):
        gate.close(at)
    guest.power = "off"
    assert gate.observe(at) == "closed"
    assert "does not run at home" in gate.close(at)


def test_a_guest_that_is_not_there_has_no_address() -> None:
    gate = step("guest-address", **ADDRESS)
    assert (gate.observe(way()), gate.close(way())) == ("closed", "db does not run at home: it has no address")
    with pytest.raises(TargetError):
        gate.open(way())

    def silent(machine: str) -> tuple[Importer, Build]:
        raise TargetUnavailable("the platform does not answer")

    assert gate.observe(way(silent)) == "unknown"
    with pytest.raises(TargetUnavailable):
        gate.close(way(silent))


class Wired:
    """An importer that moves adapters while the machine runs."""

    def __init__(self) -> None:
        self.adapters: dict[int, str | None] = {0: "quarantine", 1: "backup"}

    def wired(self, build: Build, adapter: int) -> str | None:
        return self.adapters[adapter]

    def rewire(self, build: Build, adapter: int, network: str | None) -> None:
        self.adapters[adapter] = network

    def networks(self) -> list[str]:
        return ["backup", "prod-lan", "quarantine"]


def test_adapters_are_moved_where_the_importer_can() -> None:
    platform = Wired()
    gate, at = step("port-group", open="prod-lan", closed="quarantine"), way(there(platform))
    assert gate.observe(at) == "closed"
    assert gate.open(at) == "adapter 0 of db is in prod-lan"
    assert (gate.observe(at), platform.adapters) == ("open", {0: "prod-lan", 1: "backup"})
    assert gate.close(at) == "adapter 0 of db is in quarantine"
    assert gate.observe(at) == "closed"
    assert gate.close(way()) == "db is not at home"


@pytest.mark.parametrize(
    ("settings", "starts_in", "message"),
    [
        ({"open": "prod-lan", "closed": "quarantine"}, "quarantine", ""),
        ({"open": "prod-lan"}, None, ""),
        ({"open": "prod", "closed": "quarantine"}, "quarantine", "there is no network prod at the target"),
        ({"open": "prod-lan", "closed": "prison"}, "quarantine", "there is no network prison at the target"),
        ({"open": "prod-lan", "adapter": 2}, None, "it has 1 adapters at the target: there is no number 2"),
        ({"open": "prod-lan", "closed": "quarantine"}, "prod-lan", "users reach it before it is verified"),
    ],
)
def test_adapters_that_cannot_be_moved_are_known_beforehand(
    settings: dict[str, Any], starts_in: str | None, message: str
) -> None:
    wanted = Wanted("db", Machine(name="db", memory_bytes=1 << 28), (Network(name=starts_in),))
    found = step("port-group", **settings).preflight("db", cast(Importer, Wired()), wanted)
    assert [f.severity for f in found] == ["error"] * bool(message)
    assert all(message in f.message and f.remedy for f in found)
    others = step("port-group", **settings, machines=["web-1"])
    assert others.preflight("db", cast(Importer, Wired()), wanted) == []


def test_where_it_cannot_it_says_what_to_do_instead(guest: Guest) -> None:
    gate = step("port-group", open="prod-lan")
    with pytest.raises(Unsupported, match="cannot be switched while it runs") as caught:
        gate.open(way(there(guest)))
    assert "guest-address" in caught.value.remedy
    assert gate.observe(way(there(guest))) == "unknown"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("guest-address", ADDRESS | {"machine": "mail"}, "mail is not in group shop"),
        ("port-group", {"open": "a", "machines": ["mail"]}, "mail is not in group shop"),
        ("port-group", {"open": "a", "closed": "a"}, "open and closed are one network"),
    ],
)
def test_steps_are_about_machines_of_their_group(kind: str, settings: dict[str, Any], message: str) -> None:
    plan = Plan.model_validate(shop())
    with pytest.raises(UsageError, match=message):
        step(kind, **settings).check(plan, plan.groups[0])


def test_an_address_has_its_prefix_length() -> None:
    with pytest.raises(UsageError, match="prefix length"):
        step("guest-address", **(ADDRESS | {"address": "192.0.2.10"}))
