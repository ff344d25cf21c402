"""Network adapters of a virtual machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vim

from importers.vmware.guest import Family
from pipeline.finding import Finding
from pipeline.wanted import Network

Model = Literal["vmxnet3", "e1000e", "e1000"]
MOST_CARDS = 10
_MODELS: dict[str, Model] = {
    "vmxnet3": "vmxnet3",
    "vmxnet": "vmxnet3",
    "vmxnet2": "vmxnet3",
    "e1000e": "e1000e",
    "e1000": "e1000",
}
_VMWARE = "00:50:56"
"""OUI of VMware: 00 to 3f in the fourth byte are for addresses that people give, the rest vCenter hands out."""
_VMWARE_HOST = "00:0c:29"
"""What an ESXi host makes up by itself."""
_FIRST_KEY = 4000


@dataclass(frozen=True, slots=True)
class Card:
    """One adapter. `mac` empty: the platform chooses."""

    model: Model
    mac: str
    network: str | None
    """Name of the port group; None: isolated."""
    source: str = ""


def cards_of(networks: Sequence[Network], family: Family) -> tuple[tuple[Card, ...], list[Finding]]:
    """Adapters for these networks, and what is to be said about them."""
    findings: list[Finding] = []
    cards = tuple(_card(number, network, family, findings) for number, network in enumerate(networks))
    if len(cards) > MOST_CARDS:
        message = f"it has {len(cards)} adapters; a machine of vSphere has {MOST_CARDS} at most"
        findings.append(Finding("error", "networks", message, "leave some out with `NETWORK: null` in the mapping"))
    return cards, findings


def device_of(number: int, card: Card, backing: Any, *, connected: bool = True) -> Any:
    """The virtual device; `backing` of `networks.backing_of`. Not `connected`: as with the cable pulled, and the guest
    cannot plug it in."""
    device = vim.vm.device
    kind = {
        "vmxnet3": device.VirtualVmxnet3,
        "e1000e": device.VirtualE1000e,
        "e1000": device.VirtualE1000,
    }[card.model]
    return kind(
        key=_FIRST_KEY + number,
        addressType=address_type(card.mac),
        macAddress=card.mac or None,
        wakeOnLanEnabled=True,
        backing=backing,
        connectable=device.VirtualDevice.ConnectInfo(
            startConnected=connected, connected=False, allowGuestControl=connected
        ),
    )


def address_type(mac: str) -> str:
    """VirtualEthernetCardMacType: vSphere refuses an address of its own ranges that is called manual."""
    if not mac or mac.startswith(_VMWARE_HOST):
        return "generated"
    if mac.startswith(_VMWARE) and int(mac.split(":")[3], 16) > 0x3F:
        return "assigned"
    return "manual"


def _card(number: int, network: Network, family: Family, findings: list[Finding]) -> Card:
    subject = f"adapter {number}"
    model = _MODELS.get(network.model.lower())
    if model is None:
        model = "e1000e" if family == "windows" else "vmxnet3"
        if network.model:
            findings.append(
                Finding(
                    "note",
                    subject,
                    f"its model ({network.model}) is none that vSphere has; it becomes {model}",
                    "name another one with `model:` in the mapping if the machine has no driver for it",
                )
            )
    if network.mac and int(network.mac[:2], 16) & 1:
        message = f"its address {network.mac} is one of a group, which vSphere refuses"
        findings.append(Finding("error", subject, message, "say `mac: new` in the mapping"))
    return Card(model, network.mac, network.name, network.source)
