"""What an agent keeps on its host: who it is, which orders it took, what came of them. Losing it means pairing anew.

<state>/agent/<agent>/
    lock                 held by the running agent
    identity.json        its keys, its life and the pairing, mode 0600
    handled              number of the newest order that was taken, refused or found missing
    taken/<number>       an order that was accepted and has not ended: the document as it was stored
    ended/<order>        the last report of an order, until newer ones push it out
    unsent/<number>      a last report that the store does not have yet
    stages/<digest>/     what is known of a disk (pipeline.transfer.stage)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.mail import Channel, Pair
from pipeline.agent.code import PairingCode
from pipeline.agent.known import write_durably
from pipeline.agent.orders import DiskName, Report
from pipeline.errors import KeyRefused, TargetError

_ENDED_KEPT = 200
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """`run` is this life of the agent: of this boot of its host, with this journal. Orders are for one life only."""

    code: PairingCode
    pair: Pair
    run: str
    boot: str

    @property
    def channel(self) -> Channel:
        return Channel(self.code.repository, self.code.agent, self.code.secret, self.pair, self.code.controller)


def known_agents(state: Path) -> list[PairingCode]:
    """The codes that agents of this host were paired with."""
    found = []
    for path in sorted((state / "agent").glob("*/identity.json")):
        found.append(PairingCode.decode(json.loads(path.read_bytes())["code"]))
    return found


class Journal:
    """Of one agent. Everything is durable when its call returns."""

    def __init__(self, state: Path, agent: str) -> None:
        self.folder = state / "agent" / agent
        for name in ("taken", "ended", "unsent", "stages"):
            (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise TargetError(f"agent {agent} runs on this host already", remedy="stop it first") from None

    def close(self) -> None:
        os.close(self._lock)

    # -- who we are ------------------------------------------------------------------------------------------------

    def identity(self, code: PairingCode) -> Identity:
        """The one this pairing code was answered with, or a new one. After a boot it is another life."""
        path = self.folder / "identity.json"
        boot = _boot()
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            identity = Identity(code, Pair.new(), os.urandom(16).hex(), boot)
        else:
            known = PairingCode.decode(found["code"])
            if (known.secret, known.controller) != (code.secret, code.controller):
                raise KeyRefused(
                    f"agent {code.agent} was paired here with another code",
                    remedy=f"remove {self.folder} to begin anew",
                )
            # The address and the login may be newer.
            pair = Pair(bytes.fromhex(found["sign"]), bytes.fromhex(found["box"]))
            identity = Identity(code, pair, found["run"], found["boot"])
            if identity.boot != boot:
                identity = replace(identity, run=os.urandom(16).hex(), boot=boot)
        self._keep(identity)
        return identity

    def new_life(self, identity: Identity) -> Identity:
        """As after a boot, for an agent that was set back: it knows nothing of its disks any more."""
        shutil.rmtree(self.folder / "stages", ignore_errors=True)
        for name in ("taken", "ended", "unsent"):
            for path in (self.folder / name).iterdir():
                path.unlink()
        (self.folder / "stages").mkdir(mode=0o700)
        identity = replace(identity, run=os.urandom(16).hex())
        self._keep(identity)
        return identity

    def _keep(self, identity: Identity) -> None:
        document = {
            "code": identity.code.encode(),
            "sign": identity.pair.sign.hex(),
            "box": identity.pair.box.hex(),
            "run": identity.run,
            "boot": identity.boot,
        }
        write_durably(self.folder / "identity.json", json.dumps(document).encode())

    # -- orders ----------------------------------------------------------------------------------------------------

    @property
    def handled(self) -> int:
        try:
            return int((self.folder / "handled").read_text())
        except FileNotFoundError:
            return 0

    def set_handled(self, number: int) -> None:
        write_durably(self.folder / "handled", f"{number}\n".encode())

    def take(self, number: int, document: bytes) -> None:
        write_durably(self.folder / "taken" / f"{number:010d}", document)

    def taken(self) -> dict[int, bytes]:
        """Orders that have not ended, by number."""
        return {int(path.name): path.read_bytes() for path in _files(self.folder / "taken")}

    def drop(self, number: int) -> None:
        """An order that was accepted is not ours to do any more."""
        (self.folder / "taken" / f"{number:010d}").unlink(missing_ok=True)

    def end(self, report: Report) -> None:
        """An order has ended: its last report is kept, and has to be sent."""
        data = report.model_dump_json().encode()
        write_durably(self.folder / "ended" / report.order, data)
        write_durably(self.folder / "unsent" / f"{report.number:010d}", data)
        self.drop(report.number)
        kept = sorted(_files(self.folder / "ended"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-_ENDED_KEPT]:
            path.unlink()

    def ended(self, order: str) -> Report | None:
        """The last report of an order that ended in this life or an earlier one."""
        try:
            return Report.model_validate_json((self.folder / "ended" / order).read_bytes())
        except FileNotFoundError:
            return None

    def unsent(self) -> list[Report]:
        return [Report.model_validate_json(path.read_bytes()) for path in _files(self.folder / "unsent")]

    def sent(self, number: int) -> None:
        (self.folder / "unsent" / f"{number:010d}").unlink(missing_ok=True)

    # -- disks -----------------------------------------------------------------------------------------------------

    def stage_folder(self, disk: DiskName) -> Path:
        """Where it is noted what this disk holds."""
        name = hashlib.sha256(f"{disk.serial.casefold()}:{disk.size}".encode()).hexdigest()[:32]
        return self.folder / "stages" / name


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
