"""Combinations of abilities, named after what has them (design: Importers)."""

from __future__ import annotations

from typing import Any

from pipeline.target import Abilities

CONSOLE: Any = frozenset({"text", "picture"})
KINDS = {
    "like qemu": Abilities(layer="overlay", console=CONSOLE),
    "like a hypervisor's bulk path": Abilities(patch="none", layer="snapshot", proof="stream"),
    "like a hypervisor's worker": Abilities(layer="snapshot", adopts=True, guest=frozenset({"heartbeat", "command"})),
    "like a gateway": Abilities(layer="clone", size_step=1 << 20, network_at="boot"),
    "like a gateway that refreshes below machines": Abilities(layer="clone", stage_while_layered=True),
    "like a block API": Abilities(patch="child", layer="clone", create_off=False, granule=512 << 10),
    "like a transition host": Abilities(layer="none", power="guest", writer="agent"),
    "layers without patches": Abilities(patch="none", layer="clone", network_at="boot", create_off=False),
    "children under snapshots": Abilities(patch="child", layer="snapshot", instant=True),
    "switched by a person": Abilities(layer="snapshot", power="none"),
    "neither layers nor patches": Abilities(patch="none", layer="none", create_off=False),
}
