"""`ping`: the machine answers ICMP echo requests, where it is on a network that leads to it."""

from __future__ import annotations

import ipaddress
from typing import Any

from pydantic import Field

from manifests.machine import Model
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, not_applicable, passed
from pipeline.verify.hooks.text import decoded, last_lines
from pipeline.verify.process import run
from pipeline.verify.subject import Subject

ANY_PORT = 7
"""Asked for only to learn the machine's address; where it is relayed, there is none."""


class PingSettings(Model):
    count: int = Field(default=1, ge=1, le=20)
    """Answers that must come, of as many requests."""


class PingHook(Hook[PingSettings]):
    """Not applicable unless the machine itself has the address at which it is reached: an isolated or a translated
    network (QEMU's user mode) does not lead to it, and what answers at that address from here is another machine."""

    Settings = PingSettings
    form = "ping or ping:COUNT"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        return {"count": rest} if rest else {}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        if subject.isolated:
            return not_applicable("the network is isolated: no ping gets there")
        endpoint = subject.reach(ANY_PORT)
        if endpoint is None:
            return failed("no address of the machine is known")
        if endpoint.relayed or endpoint.port != ANY_PORT or _is_ours(endpoint.host):
            return not_applicable("only single TCP ports lead to the machine: no ping gets there")
        # -W bounds the wait for one answer, -w for all (ping(8), iputils).
        seconds = max(1, int(attempt.seconds))
        command = ["ping", "-n", "-q", "-c", str(self.settings.count), "-w", str(seconds), "--", endpoint.host]
        try:
            ran = run(command, seconds=attempt.seconds + 1, cancelled=attempt.cancelled)
        except FileNotFoundError:
            return Outcome("failed", "ping is not installed on this host: apt-get install iputils-ping", final=True)
        said = last_lines(decoded(ran.output + b"\n" + ran.error), 2)
        if ran.exit_code == 0:
            return passed(f"{endpoint.host} answers: {said}")
        return failed(f"{endpoint.host} does not answer: {said}")


def _is_ours(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
