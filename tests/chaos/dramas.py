"""Short plays in which a protocol that is wrong loses something: what chance would need long to bring about."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.actors import MIB, Writer
from chaos.commands import SOURCES, Done, Running
from chaos.ledger import Fault, content_of
from chaos.weather import HOUR
from chaos.world import World

SLOW = "3M"
"""Upload limit: some seconds from the first stored pack to the commit."""
PATIENCE_SECONDS = 180.0


def planted(root: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of the product with one thing got wrong."""
    for package in ("manifests", "pipeline", "importers"):
        shutil.copytree(SOURCES / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = root / file
    text = path.read_text()
    assert text.count(right) == 1, f"{file} has changed: {right!r} is there {text.count(right)} times"
    path.write_text(text.replace(right, wrong))
    return root


def a_writer_sleeps_longer_than_the_grace(world: World) -> None:
    """What it had stored is collected; when it wakes it must not commit."""
    writer = world.writer("db", "a")
    refill(writer)
    note(writer, export(writer))
    refill(writer)
    with asleep(writer) as running:
        world.weather.pass_time(2 * HOUR)
        done = world.hosts["c"].run("gc", "--apply", "--grace", "1h", "--json")
        done.check()
        if not done.result["freed"]:
            raise Fault("nothing of what a silent writer had stored was freed")
    note(writer, running.end())
    world.compare_all(world.hosts["c"])


def another_host_takes_over(world: World) -> None:
    """Of two that commit one point, one must lose."""
    first, second = world.writer("mail", "a"), world.writer("mail", "b")
    refill(first)
    with asleep(first) as running:
        world.weather.pass_time(HOUR / 3)
        refill(second)
        note(second, export(second))
    note(first, running.end())
    world.compare_all(world.hosts["c"])


def a_forgotten_point_comes_back(world: World) -> None:
    """Within a day, though a collection ran meanwhile."""
    writer = world.writer("db", "b")
    for _ in range(2):
        refill(writer)
        note(writer, export(writer))
    label = world.ledger.points("db")[-2]
    tag = world.ledger.tag(label)
    host = world.hosts["c"]
    host.run("forget", label, "--reason", "drama", "--json").check()
    world.ledger.forget([label])
    world.weather.pass_time(2 * HOUR)
    host.run("gc", "--apply", "--grace", "1h", "--json").check()
    done = host.run("unforget", label, "--json")
    done.check()
    world.ledger.commit(done.result["point"], str(tag))
    world.compare_all(host)


Drama = Callable[[World], None]
DRAMAS: tuple[Drama, ...] = (
    a_writer_sleeps_longer_than_the_grace,
    another_host_takes_over,
    a_forgotten_point_comes_back,
)


def refill(writer: Writer) -> None:
    """Nothing that was stored before can be of use for these disks."""
    for path in writer.disks:
        path.write_bytes(random.randbytes(path.stat().st_size // MIB * MIB))
    writer.tag = writer.ledger.new_tag(content_of(writer.disks))


def export(writer: Writer) -> Done:
    return writer.host.run(*_arguments(writer))


def note(writer: Writer, done: Done) -> None:
    done.check(9)
    if done.code == 0:
        writer.ledger.commit(done.result["point"], writer.tag)


@contextmanager
def asleep(writer: Writer) -> Iterator[Running]:
    """An export that has stored something and is stopped; afterwards it goes on."""
    running = writer.host.start(*_arguments(writer), settings={"FAILBACK_UPLOAD_LIMIT": SLOW})
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(line.get("sent", 0) > 0 for line in running.said()):
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise Fault(f"{running.command} stored nothing: {running.said()}")
            time.sleep(0.05)
        running.process.send_signal(signal.SIGSTOP)
        yield running
        running.process.send_signal(signal.SIGCONT)
    except BaseException:
        running.process.kill()
        raise


def _arguments(writer: Writer) -> list[str]:
    named = [part for path in writer.disks for part in ("--disk", str(path))]
    return ["export", writer.machine, *named, "--tag", f"content={writer.tag}", "--json"]
