"""`guest-address`: the address that users know is put on an interface inside the guest, and taken off again.

    settings: {machine: web-1, address: 192.0.2.10/24, interface: eth0}

For Linux guests on platforms that run commands in them; nothing outside has to be changed. The guest boots without
that address: it must not be in its own configuration as long as the run goes on. An address that is put on this way is
gone after the guest's next boot: write it into its configuration when the run has committed.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from manifests.machine import Model
from pipeline.errors import TargetError, TargetUnavailable, UsageError
from pipeline.finding import Finding
from pipeline.place import CommandResult
from pipeline.plans.model import Group, MachineName, Plan
from pipeline.plans.traffic import Gate, State, Way
from pipeline.target import Build, Importer
from pipeline.verify.duration import Seconds
from pipeline.wanted import Wanted


def _address(text: str) -> str:
    if "/" not in text:
        raise ValueError("write it with its prefix length: 192.0.2.10/24")
    return str(ipaddress.ip_interface(text))


class GuestAddressSettings(Model):
    machine: MachineName
    address: Annotated[str, AfterValidator(_address)]
    """With its prefix length."""
    interface: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,15}$")]
    """Its name in the guest."""
    announce: bool = True
    """Tell the neighbours (gratuitous ARP) where the address is now, if the guest has `arping`."""
    timeout: Annotated[Seconds, Field(gt=0)] = 30.0
    """Of one command in the guest."""


class GuestAddressGate(Gate[GuestAddressSettings]):
    Settings = GuestAddressSettings

    def check(self, plan: Plan, group: Group) -> None:
        if self.settings.machine not in group.machines:
            raise UsageError(
                f"{self.settings.machine} is not in group {group.name}",
                remedy=f"its machines are {', '.join(group.machines)}",
            )

    def preflight(self, machine: str, importer: Importer, wanted: Wanted) -> list[Finding]:
        if machine != self.settings.machine or "command" in importer.abilities.guest:
            return []
        message = "its platform, or our importer for it, runs no commands in guests: no address can be put on in it"
        remedy = "use a traffic step of kind command (firewall, load balancer, DNS) or, on VMware, port-group"
        return [Finding("error", "guest", message, remedy)]

    def open(self, way: Way) -> str:
        settings = self.settings
        importer, build = way.at_home(settings.machine)
        self._must(importer, build, "address", "replace", settings.address, "dev", settings.interface)
        said = f"{settings.address} is on {settings.interface} of {settings.machine}"
        if settings.announce and ipaddress.ip_interface(settings.address).version == 4:
            said += ", announced" if self._announced(importer, build) else ", not announced: no arping in the guest"
        return said

    def close(self, way: Way) -> str:
        settings = self.settings
        if (found := self._found(way)) is None:
            return f"{settings.machine} does not run at home: it has no address"
        importer, build = found
        if not self._is_on(importer, build):
            return f"{settings.address} is not on {settings.interface} of {settings.machine}"
        self._must(importer, build, "address", "delete", settings.address, "dev", settings.interface)
        return f"{settings.address} was taken off {settings.interface} of {settings.machine}"

    def observe(self, way: Way) -> State:
        try:
            if (found := self._found(way)) is None:
                return "closed"
            return "open" if self._is_on(*found) else "closed"
        except TargetError:
            return "unknown"

    def _found(self, way: Way) -> tuple[Importer, Build] | None:
        """None: it is not there, or off. Raises TargetUnavailable when that is not known."""
        try:
            importer, build = way.at_home(self.settings.machine)
        except TargetUnavailable:
            raise
        except TargetError:
            return None
        return None if importer.observe(build).power == "off" else (importer, build)

    def _is_on(self, importer: Importer, build: Build) -> bool:
        settings = self.settings
        bare = ipaddress.ip_interface(settings.address).ip
        words = ("-oneline", "address", "show", "dev", settings.interface, "to", str(bare))
        return bool(self._must(importer, build, *words).output.strip())

    def _announced(self, importer: Importer, build: Build) -> bool:
        bare = str(ipaddress.ip_interface(self.settings.address).ip)
        words = ("arping", "-U", "-c", "2", "-I", self.settings.interface, bare)
        try:
            return importer.command(build, words, seconds=self.settings.timeout).exit_code == 0
        except TargetError:
            return False  # it is not installed, which is no reason to keep users out

    def _must(self, importer: Importer, build: Build, *words: str) -> CommandResult:
        done = importer.command(build, ("ip", *words), seconds=self.settings.timeout)
        if done.exit_code != 0:
            said = " ".join(done.error.decode("utf-8", "replace").split())[:400]
            raise TargetError(
                f"`ip {' '.join(words)}` in {self.settings.machine} ended with {done.exit_code}: {said}",
                remedy="correct the interface's name in the plan, or mend it in the guest; it is called again",
            )
        return done
