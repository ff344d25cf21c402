"""A plan to be filled in: what the repository knows is in it, what only a person knows is asked in comments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.catalogue import Point
from pipeline.units import size


@dataclass(frozen=True, slots=True)
class Known:
    """A machine that the plan is to bring home; `point` is its newest, if it has one."""

    name: str
    point: Point | None


def draft(name: str, machines: Sequence[Known], *, target: str, source: str) -> str:
    """YAML that is a plan already: all machines in one wave, nothing but starting asked of them."""
    networks = sorted({nic.network for known in machines if known.point for nic in known.point.manifest.machine.nics})
    lines = [
        f"# Plan {name}. `failback plan check FILE` looks at it, `failback run start FILE` executes it.",
        "# `failback plan schema > plan.schema.json` writes what editors need for the next line.",
        "# yaml-language-server: $schema=plan.schema.json",
        f"name: {name}",
        f"target: {_text(target)}",
        "",
        "# Where things go at the target: networks, names, memory, storage, as of `failback import --map`.",
        "mapping:",
        "  networks:",
        *(f"    # {_text(network)}: NETWORK-THERE" for network in networks if network),
        '    "*": {isolated: true}        # all that are not named: cut off from everything',
        "",
        "# Where the machines run now.",
        "source:",
        f"  kind: {_text(source)}",
        "  options: {}",
        "",
        "machines:",
    ]
    for known in machines:
        lines += _machine(known)
    names = ", ".join(_text(known.name) for known in machines)
    lines += [
        "",
        "# A group comes home whole or not at all. Its waves boot one after the other, and are stopped in reverse.",
        "groups:",
        f"  - name: {name}",
        f"    waves: [[{names}]]           # such as [[db], [web-1, web-2]]",
        "    # What lets users in, and keeps them out until all is verified:",
        "    # traffic:",
        "    #   - name: dns",
        "    #     kind: command",
        "    #     settings: {open: [/etc/failback/dns, home], close: [/etc/failback/dns, away], "
        "observe: [/etc/failback/dns, show]}",
        "",
        "# Waited for before a run begins to work or, with `when: cutover`, before a group's downtime begins.",
        "conditions:",
        "  - {name: bucket, kind: repository}",
        "  - {name: home is ready, kind: target}",
        "  # - name: at night",
        "  #   kind: window",
        "  #   when: cutover",
        '  #   settings: {zone: Europe/Berlin, times: ["sat,sun 22:00-06:00"]}',
        "  # - {name: found good, kind: verified, settings: {within: 7d, how: boot}}",
        '  # - {name: go, kind: flag, settings: {flag: go, question: "do the users know?"}}',
        "",
        "rehearsal: {before_cutover: true}",
        "approvals: {cutover: true, gate: false, commit: true, valid: 8h}",
        "on_failure: hold                 # or: rollback",
        "deadlines: {downtime: 30min, checks: 15min}",
        "",
        "# For `failback schedule install`: systemd calendar expressions.",
        '# schedule: {export: hourly, conditions: "*:0/5", scrub: weekly, gc: daily, rehearse: Sun 03:00}',
    ]
    return "\n".join(lines) + "\n"


def _machine(known: Known) -> list[str]:
    lines = [f"  {_text(known.name)}:"]
    if known.point is None:
        lines.append("    # It has no point yet: the run exports it.")
    else:
        manifest = known.point.manifest
        hardware = manifest.machine
        disks = ", ".join(size(disk.size) for disk in manifest.disks)
        lines.append(
            f"    # {manifest.label}: {hardware.cpus} CPUs, {size(hardware.memory_bytes)}, {hardware.firmware}, "
            f"disks of {disks or 'nothing'}"
        )
    return [
        *lines,
        "    source: {}                   # what this kind of source wants to know of it",
        "    checks: []                   # such as [{name: answers, hook: tcp, settings: {port: 22}}]",
        "    needs: []                    # machines that have to answer before this one is of use",
    ]


def _text(value: str) -> str:
    """As JSON, which is YAML, unless it is a plain word."""
    plain = value.replace("-", "").replace("_", "")
    words = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    if plain.isascii() and plain.isalnum() and value[0].isalpha() and value.lower() not in words:
        return value
    return json.dumps(value, ensure_ascii=False)
