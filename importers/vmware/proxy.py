"""The way through an HTTP proxy, and who is reached without it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from importers.vmware.options import VmwareOptions, split_address


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where connections to a host begin. Proxies of the environment are left alone: uploads go to hosts that are
    seldom meant by them."""

    host: str = ""
    port: int = 0
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: VmwareOptions) -> Proxy:
        if not options.proxy:
            return cls()
        host, port = split_address(options.proxy.removeprefix("http://"))
        return cls(host, port, options.no_proxy)

    def serves(self, host: str) -> bool:
        """Whether connections to `host` go through it."""
        return bool(self.host) and not _named(host, self.without)


def _named(host: str, rules: Sequence[str]) -> bool:
    return any(_matches(host.lower(), rule.lower()) for rule in rules)


def _matches(host: str, rule: str) -> bool:
    if rule == "*" or host == rule.removeprefix(".") or host.endswith("." + rule.removeprefix(".")):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False
