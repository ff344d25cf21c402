"""The estate whose home is VMware: the stand-in for vCenter, which runs what is brought home in QEMU.

Its guests take no commands, and are not reached before users are: what is wrong in them they say on their consoles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from servers import Server
from simulators.vsphere_server import VSphere

from runs.estate.estate import Estate
from runs.estate.machines import DATABASE_PORT, at_every_boot
from runs.stand_in import PASSWORD, options_of

LAN, QUARANTINE = "VM Network", "DC0_DVPG0"


class VmwareEstate(Estate):
    # Five machines share the processors: those that only wait are to leave them to those that boot.
    pause, every = 0.2, 0.25

    def __init__(self, root: Path, bucket: Server, home: VSphere, machines: Sequence[str] = ("db", "web-1")) -> None:
        super().__init__(root, bucket, machines)
        self.vsphere = home
        self.environ[PASSWORD] = home.password

    def __enter__(self) -> VmwareEstate:
        super().__enter__()
        try:
            # To be seen at home.
            at_every_boot(self.folder(self.machines[0]), "/etc/guest/database check >/dev/console")
        except BaseException:
            self._stack.close()
            raise
        return self

    def _home(self) -> dict[str, Any]:
        mapping = {
            "networks": {"*": QUARANTINE},
            "disks": {0: {"bus": "pvscsi"}},
            "options": {"vmware": options_of(self.vsphere) | {"serial": "always"}},
        }
        return {"target": "vmware", "mapping": mapping}

    def _checks(self, name: str, failing: bool) -> list[dict[str, Any]]:
        texts = {"up": "failback-guest ready"}
        texts |= {"whole": "no gap"} if name == self.machines[0] else {}
        checks: list[dict[str, Any]] = [
            {"name": check, "hook": "console", "settings": {"text": text}} for check, text in texts.items()
        ]
        if failing:
            checks.append({
                "name": "till", "hook": "console", "within": "0s", "after": [checks[-1]["name"]],
                "settings": {"text": "the till is open"},
            })  # fmt: skip
        return checks

    def _traffic(self) -> list[dict[str, Any]]:
        """The adapters first; then clients are led to where the stand-in's QEMU is reached."""
        [clients] = super()._traffic()
        clients["settings"]["open"][-1] = f"{self._reach()} && {clients['settings']['open'][-1]}"
        wires = {"name": "wires", "kind": "port-group", "settings": {"open": LAN, "closed": QUARANTINE}}
        return [wires, clients]

    def _reach(self) -> str:
        """A program that gives the database at home its port of this host; one that it has stays."""
        where = f"{self.vsphere.control}/machines/{self.machines[0]}/forward"
        wish = f'{{"guest": {DATABASE_PORT}, "port": {self.ports["home"]}}}'
        return f"curl -s -o /dev/null --noproxy '*' -d '{wish}' {where}"
