"""Instant: a machine started from the repository at once, beside a full restore and a start from local disks."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.bench import facts, tool
from scripts.bench.apart import apart
from scripts.bench.checks import Check
from scripts.bench.files import empty, settle
from scripts.bench.ground import Ground, undisturbed
from scripts.bench.measure import Command, CommandFailed, run
from scripts.bench.noise import make_noise
from scripts.bench.table import aligned
from scripts.guest.build import GuestDisks, make_guest
from scripts.guest.recipe import Recipe

MACHINE = "vm"
READY = "failback-guest ready"
"""What the guest writes to its console when all its services are up."""
LIMIT = 50_000_000
"""Bytes a second from the store."""
MOST, RESTORE_LEAST = 10.0, 80.0
"""Seconds: what an instant start may take longer than a local one, where the full restore takes at least that."""


@dataclass(frozen=True)
class Starts:
    """Seconds from the start of a command to its end. `size`: bytes of the disk that cannot be compressed."""

    size: int
    restore: float
    """Both disks, fetched and proved; the machine built and left off."""
    local: float
    """Then: from its disks to the text on its console."""
    instant: float
    """On a host that has nothing: from the repository to the same text."""
    limit: int = LIMIT
    machine: dict[str, object] = field(default_factory=facts.machine)

    @property
    def longer(self) -> float:
        """Seconds that the instant start took longer than the local one."""
        return self.instant - self.local

    def table(self) -> str:
        """A line for each."""
        rows = [("what", "", "seconds")]
        rows.append(("full restore", f"{self.size / 1e9:.2f} GB and the system", f"{self.restore:.1f}"))
        rows.append(("start from local disks", "to the text on the console", f"{self.local:.1f}"))
        rows.append(("instant start", "to the same text", f"{self.instant:.1f}"))
        rows.append(("difference", "of the two starts", f"{self.longer:.1f}"))
        return aligned(rows)

    def check(self) -> Check:
        """The promise. Not measured where the full restore was too short for it to mean anything."""
        promise = f"instant start at most {MOST:g} s longer than a local one, where the restore takes {RESTORE_LEAST:g}"
        figure = f"{self.longer:.1f} s longer; the restore took {self.restore:.0f} s"
        return Check(promise, figure, self.longer <= MOST if self.restore >= RESTORE_LEAST else None)

    def write(self, path: Path) -> None:
        """All figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self) | {"longer": self.longer}, indent=1))


def instant(ground: Ground, *, size: int, seed: int) -> Starts:
    """Export a guest with a second disk of `size` bytes of noise, then take the three times. Nothing is left running.

    Raises CommandFailed, also when the text does not appear on the console.
    """
    repository = _export(ground, size, seed)
    with _Home(ground, repository, "local") as home:
        restore = home.bring()
        local = home.bring(*_UNTIL_READY)
    with _Home(ground, repository, "instant") as home:
        return Starts(size, restore, local, home.bring("--instant", *_UNTIL_READY))


_UNTIL_READY = ("--hook", f"console:{READY}")


def _export(ground: Ground, size: int, seed: int) -> Path:
    """The repository; the disks that went there are gone."""
    system, noise, repository = ground.image, ground.image.with_name("noise.raw"), ground.store / "repository"
    key = ground.scratch / "key"
    make_guest(GuestDisks(Recipe(name=MACHINE), (system,), ssh_key=key, ssh_host_key=key.with_suffix(".host")))
    apart(make_noise, noise, size, seed=seed)
    state = ground.scratch / "takeover"
    hardware = ("--cpus", "2", "--memory", "512M", "--bus", "virtio", "--nic", "network=lan")
    for arguments in (
        ("repository", "init"),
        ("export", MACHINE, "--disk", str(system), "--disk", str(noise), *hardware),
    ):
        run(_command(repository, state, *arguments), ground.log)
    system.unlink()
    noise.unlink()
    return repository


class _Home:
    """A host that the machine comes to: with nothing on it at first, and nothing in the end."""

    def __init__(self, ground: Ground, repository: Path, name: str) -> None:
        self._ground, self._repository = ground, repository
        self._state = empty(ground.restores / name)

    def __enter__(self) -> "_Home":
        return self

    def bring(self, *options: str) -> float:
        """Import the machine; returns seconds."""
        settle(self._ground.store, self._ground.restores)
        return self._failback("import", "--quiet", *options)

    def __exit__(self, *_error: object) -> None:
        """The machine is off and gone, however far it came."""
        with undisturbed():
            with suppress(CommandFailed):  # it had not come that far; if there is more to it, the next command says so
                self._failback("stop", "--seconds", "0")
            self._failback("clean", "--all")
            empty(self._state)

    def _failback(self, verb: str, *options: str) -> float:
        command = _command(self._repository, self._state, verb, MACHINE, "--to", "qemu", *options)
        return run(command, self._ground.log).wall


def _command(repository: Path, state: Path, *arguments: str) -> Command:
    environment = {
        "FAILBACK_REPOSITORY": str(repository),
        "FAILBACK_KEY_FILE": str(repository.with_name("key")),
        "FAILBACK_STATE_DIR": str(state),
        "FAILBACK_DOWNLOAD_LIMIT": str(LIMIT),
    }
    return Command([*tool.failback(), *arguments], environment)
