"""`port-group`: adapters are moved between a network without users and the one that users reach.

    settings: {closed: quarantine, open: prod-lan}           # of all machines of the group, their first adapter

For platforms whose importer can do that while the machine runs (`Rewires`); others refuse, and say what to do instead.
"""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from manifests.machine import Model
from pipeline.errors import TargetError, TargetUnavailable, Unsupported, UsageError
from pipeline.finding import Finding
from pipeline.plans.model import Group, MachineName, Plan
from pipeline.plans.traffic import Gate, State, Way
from pipeline.target import Build, Importer
from pipeline.wanted import Wanted

_CANNOT = (
    "the networks of {name} cannot be switched while it runs: its platform, or our importer for it, does not do that"
)
_INSTEAD = "use a traffic step of kind command (firewall, load balancer, DNS) or guest-address"


@runtime_checkable
class Rewires(Protocol):
    """What an importer may have beside its verbs. Adapters are numbered from 0, in the machine's order."""

    def wired(self, build: Build, adapter: int) -> str | None:
        """The network that the adapter is in; None: in none that anything outside reaches. Raises TargetError."""

    def rewire(self, build: Build, adapter: int, network: str | None) -> None:
        """Move it there while the machine runs; nothing when it is there. Raises TargetError."""

    def networks(self) -> list[str]:
        """Names of those that adapters can be moved to. Raises TargetError."""


class PortGroupSettings(Model):
    closed: str | None = None
    """Network while users are kept out; null: none that anything outside reaches."""
    open: Annotated[str, Field(min_length=1)]
    """Network that users reach."""
    machines: tuple[MachineName, ...] = ()
    """Empty: all of the group."""
    adapter: Annotated[int, Field(ge=0, le=63)] = 0


class PortGroupGate(Gate[PortGroupSettings]):
    Settings = PortGroupSettings

    def check(self, plan: Plan, group: Group) -> None:
        for name in self.settings.machines:
            if name not in group.machines:
                raise UsageError(
                    f"{name} is not in group {group.name}", remedy=f"its machines are {', '.join(group.machines)}"
                )
        if self.settings.closed == self.settings.open:
            raise UsageError(f"open and closed are one network, {self.settings.open}", remedy="name two")

    def preflight(self, machine: str, importer: Importer, wanted: Wanted) -> list[Finding]:
        settings, found = self.settings, list[Finding]()
        if settings.machines and machine not in settings.machines:
            return []
        if not isinstance(importer, Rewires):
            return [Finding("error", "networks", _CANNOT.format(name=machine), _INSTEAD)]
        there = importer.networks()
        for network in (settings.open, settings.closed):
            if network is not None and network not in there:
                known = ", ".join(there[:10]) or "none"
                message = f"there is no network {network} at the target"
                found.append(Finding("error", "networks", message, f"correct the traffic step; there are {known}"))
        if settings.adapter >= len(wanted.networks):
            message = f"it has {len(wanted.networks)} adapters at the target: there is no number {settings.adapter}"
            found.append(Finding("error", "networks", message, "they are counted from 0; correct `adapter`"))
        elif wanted.networks[settings.adapter].name == settings.open:
            message = f"adapter {settings.adapter} starts in {settings.open}: users reach it before it is verified"
            remedy = (
                f"map its network to {settings.closed or '{isolated: true}'}: the step moves it when the gate opens"
            )
            found.append(Finding("error", "networks", message, remedy))
        return found

    def open(self, way: Way) -> str:
        return "; ".join(self._move(way, name, self.settings.open) for name in self._machines(way))

    def close(self, way: Way) -> str:
        done = []
        for name in reversed(self._machines(way)):
            if self._gone(way, name):
                done.append(f"{name} is not at home")
            else:
                done.append(self._move(way, name, self.settings.closed))
        return "; ".join(done)

    def observe(self, way: Way) -> State:
        try:
            there = [name for name in self._machines(way) if not self._gone(way, name)]
            found = {self._wired(way, name) for name in there}
        except TargetError:
            return "unknown"
        if found == {self.settings.open} and len(there) == len(self._machines(way)):
            return "open"
        return "unknown" if self.settings.open in found else "closed"

    def _machines(self, way: Way) -> list[str]:
        """Those that are meant, as far as they come home."""
        coming = way.environment.get("FAILBACK_MACHINES", "").splitlines()
        return [name for name in coming if name and (not self.settings.machines or name in self.settings.machines)]

    def _gone(self, way: Way, name: str) -> bool:
        try:
            way.at_home(name)
        except TargetUnavailable:
            raise
        except TargetError:
            return True
        return False

    def _wired(self, way: Way, name: str) -> str | None:
        rewires, build = self._able(way, name)
        return rewires.wired(build, self.settings.adapter)

    def _move(self, way: Way, name: str, network: str | None) -> str:
        rewires, build = self._able(way, name)
        rewires.rewire(build, self.settings.adapter, network)
        return f"adapter {self.settings.adapter} of {name} is in {network or 'no network'}"

    def _able(self, way: Way, name: str) -> tuple[Rewires, Build]:
        importer, build = way.at_home(name)
        if not isinstance(importer, Rewires):
            raise Unsupported(_CANNOT.format(name=name), remedy=_INSTEAD)
        return importer, build
