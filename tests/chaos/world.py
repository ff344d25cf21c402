"""A repository in bad hands: actors, weather, and what must be true when it is over."""

from __future__ import annotations

import random
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

from nbd.tools import small_disk
from servers import BUCKET, REGION

from chaos.actors import MIB, Actor, Collector, Forgetter, Reader, Restorer, Writer, compare
from chaos.commands import SOURCES, Host
from chaos.ledger import Fault, Ledger
from chaos.weather import HOUR, Weather

MACHINES = {"web": (8, 8), "db": (16,), "mail": (12,)}
"""MiB of each disk."""
WRITERS = (("web", "a"), ("web", "b"), ("db", "a"), ("mail", "b"))
"""Machine and host: web is exported from two hosts."""
SERVER_DISK_MIB = 448


class World:
    """`run` for so many seconds, then `settle`. `sources`: the checkout whose commands are run."""

    def __init__(self, root: Path, seed: int, *, sources: Path = SOURCES, own_disk: bool = True) -> None:
        self.root, self.seed = root, seed
        self.ledger = Ledger()
        self.faults: list[str] = []
        self.weather = Weather(root / "server", root / "server-disk", self.ledger, seed)
        self.actors: list[Actor] = []
        self._sources, self._own_disk = sources, own_disk
        self._over = threading.Event()
        self._environ: dict[str, str] = {}
        self.hosts: dict[str, Host] = {}

    @contextmanager
    def there(self) -> Iterator[World]:
        """With its server, and an empty repository that is encrypted."""
        disk = self.root / "server-disk"
        disk.mkdir()
        with small_disk(disk, SERVER_DISK_MIB) if self._own_disk else nullcontext(disk):  # noqa: SIM117
            with self.weather.there() as server:
                address = f"s3://{BUCKET}/chaos?endpoint={self.weather.line.endpoint}&region={REGION}"
                self._environ = {
                    **server.environ,
                    "AWS_EC2_METADATA_DISABLED": "true",
                    "FAILBACK_REPOSITORY": address,
                    "FAILBACK_KEY_FILE": str(self.root / "key"),
                }
                for name in "abcd":
                    self.hosts[name] = self.host(name)
                done = self.hosts["a"].run("repository", "init", "--json")
                done.check()
                yield self

    def host(self, name: str) -> Host:
        return Host(name, self.root, self._environ, self.ledger, self._sources)

    def writer(self, machine: str, host: str) -> Writer:
        """With disks that are half full."""
        chance = self._chance(f"disks of {machine}")
        folder = self.root / f"disks-{host}"
        folder.mkdir(exist_ok=True)
        paths = []
        for disk, mib in enumerate(MACHINES[machine]):
            path = folder / f"{machine}-{disk}.img"
            path.write_bytes(chance.randbytes(mib * MIB // 2) + bytes(mib * MIB - mib * MIB // 2))
            paths.append(path)
        return Writer(*self._common(f"writer {machine} on {host}", host), machine=machine, disks=paths)

    def people(self) -> list[Actor]:
        """Everybody who takes part."""
        found: list[Actor] = [self.writer(machine, host) for machine, host in WRITERS]
        found += [Collector(*self._common(f"collector {n}", host)) for n, host in enumerate("cd")]
        found.append(Forgetter(*self._common("forgetter", "c"), machines=tuple(MACHINES)))
        for n, host in enumerate("bd"):
            out = self.root / f"out-{n}"
            found.append(Restorer(*self._common(f"restorer {n}", host), out=out))
        found.append(Reader(*self._common("reader", "d")))
        return found

    def _common(self, name: str, host: str) -> tuple[str, Host, Ledger, Callable[[float], object], random.Random]:
        return name, self.hosts[host], self.ledger, self.weather.wait_for_time, self._chance(name)

    def _chance(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    # -- chaos -------------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Raises Fault with all that went wrong."""
        self.actors = self.people()
        turns: dict[str, Callable[[], None]] = {actor.name: actor.turn for actor in self.actors}
        turns["weather"] = self.weather.turn
        threads = [threading.Thread(target=self._live, args=item, name=item[0]) for item in turns.items()]
        for thread in threads:
            thread.start()
        try:
            self._over.wait(seconds)
        finally:
            self._over.set()
            self.weather.end()
            for thread in threads:
                thread.join()
        self.check()

    def _live(self, name: str, turn: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                turn()
            except BaseException as error:  # noqa: BLE001 - a thread has nobody above it
                text = str(error) if isinstance(error, Fault) else traceback.format_exc()
                self.faults.append(f"{name}: {text}")
                self.weather.tell(f"FAULT of {name}")
                self._over.set()

    def check(self) -> None:
        if self.faults:
            story = "\n".join(self.weather.story[-40:])
            raise Fault(f"seed {self.seed}\n" + "\n\n".join(self.faults) + f"\n\nwhat happened last:\n{story}")

    # -- afterwards --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """When all is over the same commands go on, and nothing is missing, damaged or left behind."""
        for actor in self.actors:
            actor.calm = True
        self.weather.pass_time(HOUR / 3)  # writers of other hosts, if any is left, are given up
        for actor in self.actors:
            if isinstance(actor, Writer):
                if not actor.tag:
                    actor.change()
                done = actor.export()
                if done.code != 0:
                    raise Fault(f"the same export does not go on: {done.command}: {done.err}")
            elif isinstance(actor, Forgetter):
                for machine in MACHINES:
                    actor.by_policy(machine, 2)
            elif isinstance(actor, Restorer):
                for machine in MACHINES:  # whatever an import that was killed has left there
                    if not actor.restore(self.ledger.points(machine)[-1], actor.out / machine):
                        raise Fault(f"{actor.name} cannot go on in its folder for {machine}")
        self.weather.pass_time(26 * HOUR)
        host = self.hosts["c"]
        for _ in range(2):
            done = host.run("gc", "--apply", "--grace", "1h", "--json")
            done.check()
            self.weather.pass_time(2 * HOUR)
        plan = host.run("gc", "--grace", "1h", "--json").result["plan"]
        for kind in ("packs", "pages"):
            left = {state: plan[kind][state]["count"] for state in ("doomed", "young", "held")}
            if any(left.values()):
                raise Fault(f"{kind} that no point needs are still there: {left}; sessions: {plan['sessions']}")
        host.run("scrub", "--deep", "--share", "1/1", "--json").check()
        self.compare_all(host)

    def compare_all(self, host: Host) -> None:
        """Every committed, unforgotten point is there, whole, and restores bit for bit."""
        listed: list[str] = []
        for entry in host.run("list", "--json").result["machines"]:
            done = host.run("list", entry["machine"], "--json")
            done.check()
            listed += [point["point"] for point in done.result["points"]]
        if missing := set(self.ledger.points()) - set(listed):
            raise Fault(f"committed, never forgotten, and not there: {sorted(missing)}")
        if back := set(self.ledger.gone()) & set(listed):
            raise Fault(f"forgotten, and there again: {sorted(back)}")
        self.ledger.count("points in the end", len(listed))
        with ThreadPoolExecutor(2, "compare") as pool:
            for _ in pool.map(lambda label: self._compare(host, label), listed):
                pass

    def _compare(self, host: Host, label: str) -> None:
        host.run("verify", label, "--read", "--json").check()
        shown = host.run("show", label, "--json")
        shown.check()
        tag, told = shown.result["tags"]["content"], self.ledger.tag(label)
        if told is None:
            self.ledger.commit(label, tag)
        elif told != tag:
            raise Fault(f"{label} is of content {tag}, and was committed with {told}")
        out = self.root / "last" / label
        host.run("import", label, "--to", "files", "--out", out, "--json").check()
        compare(self.ledger, label, out)
        shutil.rmtree(out)

    def report(self, seconds: float) -> str:
        """Numbers, for people."""
        counts = {**self.ledger.counts, **{f"line: {k}": v for k, v in self.weather.line.counts.items()}}
        lines = [f"{what}: {many}" for what, many in sorted(counts.items())]
        used = self.weather.most_used // MIB
        return f"seed {self.seed}, {seconds:.0f} s, most of the server's disk: {used} MiB\n" + "\n".join(lines)
