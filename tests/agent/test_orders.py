"""What the owner of the bucket, a second controller, a lost answer, an old image or a wrong clock can't do."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.wire import Wire
from manifests.mail import Pair, alive_key, answer_key, order_key, report_key
from pipeline.agent import program as program_module
from pipeline.agent import remote as remote_module
from pipeline.agent.code import PairingCode
from pipeline.agent.orders import Nothing
from pipeline.agent.remote import order_id
from pipeline.errors import AgentError, AgentSilent, Forged, KeyRefused, UsageError
from pipeline.store.base import Bytes, ObjectInfo
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(program_module, "ALIVE", 0.05)
    monkeypatch.setattr(remote_module, "_SIGNS", 0.05)
    return Wire(tmp_path)


# -- the owner of the bucket ------------------------------------------------------------------------------------------


def test_an_order_that_is_copied_to_a_later_number_is_foreign_there(wire: Wire) -> None:
    with wire.running():
        wire.remote.inventory()
        wire.put(order_key(wire.agent, 2), bytes(wire.store.get(order_key(wire.agent, 1))))
        wire.ring(2)
        assert wire.fate(2) == ("refused", "foreign")


def test_junk_in_the_place_of_the_next_order_does_not_stop_the_controller(wire: Wire) -> None:
    with wire.running():
        wire.put(order_key(wire.agent, 1), b"junk")
        wire.remote.inventory()
        assert wire.fate(1) == ("refused", "foreign")
        assert wire.fate(2) == ("done", "")


def test_an_order_that_was_done_is_never_looked_at_again(wire: Wire) -> None:
    with wire.running() as program:
        wire.remote.inventory()
        wire.store.delete_many([report_key(wire.agent, 1)])
        wire.ring(1)
        wire.remote.inventory()
        assert program.journal.handled == 2
        assert wire.store.head(report_key(wire.agent, 1)) is None


def test_an_order_that_comes_late_has_expired_by_the_stores_clock(wire: Wire) -> None:
    with wire.running():
        wire.forge(1, expires="2026-01-01T00:00:00.000Z")
        assert wire.fate(1) == ("refused", "expired")


def test_an_order_for_an_earlier_life_of_the_agent_is_stale(wire: Wire) -> None:
    with wire.running():
        wire.forge(1, run="0" * 32)
        assert wire.fate(1) == ("refused", "stale")


def test_an_order_under_another_number_than_it_was_written_for_is_refused(wire: Wire) -> None:
    with wire.running():
        wire.forge(1, number=7)
        assert wire.fate(1) == ("refused", "replayed")


def test_an_order_that_disappeared_is_given_again(wire: Wire) -> None:
    with wire.running():
        wire.forge(1)
        assert wire.fate(1) == ("done", "")
        wire.ring(2)
        assert wire.fate(2) == ("refused", "missing")
        wire.agents.known.keep_highest(wire.agent, 1)
        assert wire.remote.perform(order_id("x"), "inventory", Nothing()).report.number == 3


def test_nobody_else_signs_orders_or_reports(wire: Wire) -> None:
    with wire.running():
        stranger = Pair.new()
        wire.forge(1, channel=replace(wire.channel, mine=stranger))
        assert wire.fate(1) == ("refused", "foreign")
        key = report_key(wire.agent, 9)
        wire.put(key, replace(wire.channel, mine=stranger).write(key, {"number": 9}))
        with pytest.raises(Forged):
            wire.remote._post.report(9)


def test_a_report_of_another_order_is_not_taken_for_this_one(wire: Wire) -> None:
    with wire.running():
        wire.remote.inventory()
        wire.put(report_key(wire.agent, 2), bytes(wire.store.get(report_key(wire.agent, 1))))
        with pytest.raises(Forged, match="another place"):
            wire.remote._post.report(2)


def test_a_report_that_was_deleted_is_given_again_and_nothing_is_done_twice(wire: Wire) -> None:
    order = order_id("once")
    with wire.running():
        first = wire.remote.perform(order, "inventory", Nothing())
        wire.store.delete_many([report_key(wire.agent, first.report.number)])
        again = wire.remote.perform(order, "inventory", Nothing())
        assert again.report.number > first.report.number
        assert again.report.time == first.report.time
        assert sum(": inventory" in line for line in wire.said) == 1


def test_what_is_in_the_mailbox_tells_nothing_to_who_can_read_it(wire: Wire) -> None:
    with wire.running():
        disks = wire.remote.inventory()
        bodies = b"".join(bytes(wire.store.get(info.key)) for info in wire.store.list("mailbox/"))
        for word in ("inventory", "serial", "done", *(disk["path"] for disk in disks)):
            assert word.encode() not in bodies


# -- lost answers, killed controllers, second controllers -------------------------------------------------------------


def test_a_controller_that_was_killed_finds_its_order_and_waits_for_it(wire: Wire) -> None:
    order = order_id("work")
    with wire.running():
        sent = wire.remote.send(order, "inventory", Nothing())
        same_host = wire.controller("controller").agent(wire.agent)
        assert same_host.send(order, "inventory", Nothing()) == sent
        assert same_host.perform(order, "inventory", Nothing()).report.number == sent.number
        assert same_host.perform(order, "inventory", Nothing()).report.number == sent.number


def test_another_order_under_the_same_id_is_a_mistake(wire: Wire) -> None:
    with wire.running():
        wire.remote.send(order_id("work"), "inventory", Nothing())
        with pytest.raises(UsageError, match="another content"):
            wire.remote.send(order_id("work"), "retire", Nothing())


def test_a_controller_whose_state_was_set_back_goes_on_behind_what_it_ordered(wire: Wire) -> None:
    with wire.running():
        wire.remote.inventory()
        state = wire.root / "controller"
        shutil.copytree(state, wire.root / "backup")
        wire.remote.inventory()
        shutil.rmtree(state)
        (wire.root / "backup").rename(state)
        assert wire.remote.perform(order_id("new"), "inventory", Nothing()).report.number == 3


def test_an_agent_obeys_one_host_alone(wire: Wire) -> None:
    with wire.running():
        other = wire.controller("another host")
        with pytest.raises(AgentError, match="no agent of this host"):
            other.agent(wire.agent)
        assert [(a.agent, a.ours) for a in other.list()] == [(wire.agent, False)]
        assert [(a.agent, a.ours, a.paired) for a in wire.agents.list()] == [(wire.agent, True, True)]


# -- an agent that starts again, an old image, a wrong clock ----------------------------------------------------------


def test_an_agent_that_starts_again_on_this_boot_is_the_same(wire: Wire) -> None:
    with wire.running() as first:
        run = first.identity.run
        wire.remote.inventory()
    with wire.running() as second:
        assert second.identity.run == run
        wire.remote.inventory()


def test_after_a_boot_orders_for_the_life_before_are_given_again(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    order = order_id("over the boot")
    with wire.running():
        wire.remote.inventory()
    sent = wire.remote.send(order, "inventory", Nothing())
    monkeypatch.setattr("pipeline.agent.journal._boot", lambda: "another boot")
    with wire.running():
        report = wire.remote.perform(order, "inventory", Nothing()).report
        assert (report.state, report.attempt) == ("done", 2)
        assert wire.fate(sent.number) == ("refused", "stale")


def test_an_old_image_of_an_agent_does_nothing_twice_and_begins_a_new_life(wire: Wire) -> None:
    with wire.running() as before:
        wire.remote.inventory()
        run = before.identity.run
    shutil.copytree(wire.root / "agent", wire.root / "image")
    with wire.running():
        wire.remote.perform(order_id("later"), "inventory", Nothing())
    wire.said.clear()
    with wire.running("image") as old:
        wire.remote.perform(order_id("after"), "inventory", Nothing())
        assert old.identity.run != run
    assert sum(": inventory" in line for line in wire.said) == 1
    assert any("set back" in line for line in wire.said)


def test_the_agents_clock_does_not_matter_but_the_stores_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(Layer):
        """A store whose clock is an hour ahead of this host's."""

        def head(self, key: str) -> ObjectInfo | None:
            info = self.inner.head(key)
            return info and replace(info, modified=info.modified + timedelta(hours=1))

        def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
            self.inner.put(key, data, create=create)

    monkeypatch.setattr(program_module, "ALIVE", 0.05)
    wire = Wire(tmp_path, Ahead(MemoryStore()))
    with wire.running() as program:
        wire.remote.inventory()
        wire.forge(2, expires=remote_module.as_text(program.clock.now() - timedelta(minutes=30)))
        assert wire.fate(2) == ("refused", "expired")


def test_a_silent_agent_is_told_from_a_slow_one(wire: Wire) -> None:
    with wire.running():
        wire.remote.inventory()
    remote = wire.remote
    remote.silence = 0.2
    with pytest.raises(AgentSilent, match="no sign of life"):
        remote.perform(order_id("to nobody"), "inventory", Nothing())
    with wire.running():
        remote.silence = 60
        assert remote.perform(order_id("to nobody"), "inventory", Nothing()).report.state == "done"


def test_a_disk_that_is_plugged_in_wakes_an_idle_agent(wire: Wire) -> None:
    with wire.running(idle=600) as program:
        order = wire.remote.send(order_id("soon"), "inventory", Nothing())
        threading.Event().wait(0.2)
        assert program.journal.handled < order.number, "it idles"
        wire.devices.add("sdb")
        assert wire.fate(order.number)[0] == "done"
        assert program.pace.wait(active=False) == program.pace.fast


def test_attention_that_is_asked_for_first_of_all_is_paid(wire: Wire) -> None:
    with wire.running():
        pass
    wire.remote.attend(60)
    with wire.running(idle=600) as program:
        for _ in range(500):
            if program.pace.wait(active=False) == program.pace.fast:
                break
            threading.Event().wait(0.01)
        assert program.pace.wait(active=False) == program.pace.fast


def test_an_agent_that_gave_a_sign_of_life_is_believed_without_an_order(wire: Wire) -> None:
    with wire.running(idle=600):
        now = datetime.now(UTC)
        assert wire.remote.lives(60, since=now - timedelta(minutes=1))
        assert not wire.remote.lives(60, since=now + timedelta(minutes=1)), "its host was started since"
        assert not wire.remote.lives(-1, since=now - timedelta(minutes=1)), "the sign is older than that"
        assert not list(wire.store.list(order_key(wire.agent, 1)))


def test_the_steps_of_an_order_are_all_that_was_waited_for(wire: Wire) -> None:
    with wire.running():
        outcome = wire.remote.perform(order_id("counted"), "inventory", Nothing())
    assert sum(outcome.steps.values()) == pytest.approx(outcome.waited, abs=0.01)
    report = outcome.report.model_copy(update={"steps": {"pick_up": 4.0, "write": 6.0}})
    assert replace(outcome, waited=10.5, accepted=3.0, report=report).steps == {"pick_up": 3, "write": 6, "mail": 1.5}
    assert replace(outcome, waited=9.5, accepted=None, report=report).steps == {"pick_up": 3.5, "write": 6, "mail": 0}


def test_retiring_ends_the_agent_and_takes_its_mailbox_away(wire: Wire) -> None:
    with wire.running() as program:
        wire.agents.remove(wire.agent)
        assert program.retired
    assert wire.agents.list() == []
    assert not list(wire.store.list("mailbox/"))


# -- pairing ----------------------------------------------------------------------------------------------------------


def test_a_pairing_code_is_answered_once(wire: Wire) -> None:
    with wire.running():
        thief = wire.program("elsewhere")
        with pytest.raises(KeyRefused, match="somebody else has answered"):
            thief.answer()
        thief.journal.close()
        assert wire.remote.inventory() is not None


def test_an_answer_by_someone_without_the_code_is_not_believed(wire: Wire) -> None:
    program = wire.program("elsewhere", replace(wire.code, secret=bytes(32)))
    program.answer()
    program.journal.close()
    with pytest.raises(Forged):
        wire.agents.answered(wire.agent)


def test_an_answer_after_the_code_expired_is_not_taken(wire: Wire) -> None:
    code = wire.agents.pair("late", "memory://wire", within=-10)
    pairing = wire.agents.known.pairing(code.agent)
    program = wire.program("late", wire.code)
    mail = replace(pairing.channel, mine=program.identity.pair, theirs=None)
    public = program.identity.pair.public
    key = answer_key(code.agent)
    wire.put(key, mail.write(key, {"sign": public.sign.hex(), "box": public.box.hex(), "protocol": 1}, known=False))
    program.journal.close()
    with pytest.raises(AgentError, match="expired"):
        wire.agents.answered(code.agent)


def test_a_pairing_code_reads_back_and_damage_is_noticed_without_repeating_it(wire: Wire) -> None:
    text = wire.code.encode()
    assert PairingCode.decode(f" {text[:50]}\n{text[50:]}\n") == wire.code
    for at in range(0, len(text), 7):
        damaged = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(UsageError) as refused:
            PairingCode.decode(damaged)
        assert text[60:80] not in str(refused.value)


def test_a_sign_of_life_of_another_agent_is_not_taken_for_this_ones(wire: Wire) -> None:
    with wire.running():
        wire.remote.inventory()
        other = wire.agents.pair("other", "memory://wire")
        wire.put(alive_key(other.agent), bytes(wire.store.get(alive_key(wire.agent))))
        [listed] = [a for a in wire.agents.list() if a.agent == other.agent]
        assert not listed.paired
        assert not listed.seen
