"""The mapping: how a machine of the source side becomes one of the target's. Common to all targets; read from YAML.

    name: "{name}-home"            # what the machine is called there; {name} is its name here
    cpus: 4                        # left out: as at the source
    memory: 8GiB
    firmware: uefi
    networks:                      # network at the source -> network there; "*" is for all others
      "VM Network": prod-lan
      dmz: {name: prod-dmz, model: e1000e}
      backup: null                 # no adapter for it
      "*": {isolated: true}
    mac: keep                      # or: new
    storage: datastore1            # for all disks that say nothing else
    format: qcow2
    folder: /failback
    disks:
      0: {bus: pvscsi, storage: fast}
      1: {device: "/dev/sdb:size=42949672960"}   # an existing disk, all of which is overwritten
    options:                       # a platform's own, validated by its importer
      qemu: {accelerator: tcg}
    machines:                      # the same keys for single machines, which win
      db-1: {memory: 16GiB}

Unknown keys are refused, so that a typing error does not pass for a wish. `pipeline.wanted` applies a mapping to a
recovery point.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from manifests.machine import Model
from pipeline.errors import UsageError
from pipeline.sizes import parse_size

Bus = Literal["virtio", "virtio-scsi", "sata", "ide", "nvme", "pvscsi", "lsisas"]
EVERY_OTHER = "*"
"""Key of `networks` for those that are not named."""


def _bytes(value: object) -> object:
    if isinstance(value, bool | int | float):
        raise ValueError(f"{value} has no unit; write 8GiB or 512MiB")
    return parse_size(value) if isinstance(value, str) else value


def _template(value: str) -> str:
    fields = [(name, spec) for _text, name, spec, _conversion in string.Formatter().parse(value) if name is not None]
    if set(fields) - {("name", "")}:
        raise ValueError("only {name} can be filled in, the machine's name at the source")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        raise ValueError("a name has one line, and no control characters")
    if not value.format(name="x").strip():
        raise ValueError("the name is empty")
    return value


def _network(value: object) -> object:
    if isinstance(value, str):
        return {"name": value}
    if value is None or isinstance(value, dict | Model):
        return value
    raise ValueError("this is no network; write its name, null for no adapter, or {name: ..., model: ...}")


Size = Annotated[int, Field(ge=1), BeforeValidator(_bytes, json_schema_input_type=str)]
"""Bytes; in YAML a text with a unit."""
Name = Annotated[str, AfterValidator(_template)]
Text = Annotated[str, Field(min_length=1)]


class NetworkTarget(Model):
    """Where adapters of one source network go: a network by name, or nowhere (`isolated`)."""

    name: Text | None = None
    isolated: bool = False
    model: str = Field(default="", description="of the adapter: virtio, vmxnet3, e1000e, ...; empty: as at the source")


Network = Annotated[NetworkTarget | None, BeforeValidator(_network, json_schema_input_type=Text | NetworkTarget | None)]


class DiskTarget(Model):
    """What one disk is to be on the target; empty: as the platform does by itself, near the source."""

    bus: Bus | None = None
    storage: str = Field(default="", description="datastore, pool, volume type: the platform's word for where")
    format: str = Field(default="", description="of the disk there: raw, qcow2, thin, ...")
    device: str = Field(default="", description="an existing disk: PATH:size=BYTES or PATH:serial=TEXT")


class MachineMapping(Model):
    """What may be said for all machines or for one."""

    name: Name | None = None
    cpus: int | None = Field(default=None, ge=1, le=4096)
    memory: Size | None = None
    firmware: Literal["bios", "uefi"] | None = None
    networks: dict[str, Network] = Field(default_factory=dict)
    mac: Literal["keep", "new"] | None = None
    storage: Text | None = None
    format: Text | None = None
    folder: Text | None = None
    disks: dict[int, DiskTarget] = Field(default_factory=dict)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def over(self, below: MachineMapping) -> MachineMapping:
        """This mapping, and where it says nothing, `below`. Networks, disks and options are joined key by key."""
        joined = {name: below_value for name in MachineMapping.model_fields if (below_value := getattr(below, name))}
        joined |= {name: value for name in MachineMapping.model_fields if (value := getattr(self, name)) is not None}
        joined["networks"] = below.networks | self.networks
        numbers = below.disks.keys() | self.disks.keys()
        joined["disks"] = {n: _joined(below.disks.get(n), self.disks.get(n)) for n in sorted(numbers)}
        platforms = below.options.keys() | self.options.keys()
        joined["options"] = {p: below.options.get(p, {}) | self.options.get(p, {}) for p in sorted(platforms)}
        return MachineMapping.model_construct(**joined)


class Mapping(MachineMapping):
    """The whole document."""

    machines: dict[str, MachineMapping] = Field(default_factory=dict)

    def of(self, machine: str) -> MachineMapping:
        """What holds for one machine."""
        own = self.machines.get(machine)
        return own.over(self) if own else MachineMapping().over(self)

    def said(self, **values: Any) -> Mapping:
        """This mapping with `values` (of MachineMapping) for every machine, over everything it says: command-line
        options win over the file. Raises UsageError."""
        top = parse_mapping({k: v for k, v in values.items() if v is not None}, where="the command line")
        machines = {name: top.over(own) for name, own in self.machines.items()}
        joined = top.over(self)
        return Mapping.model_construct(
            **{n: getattr(joined, n) for n in MachineMapping.model_fields}, machines=machines
        )


def parse_mapping(document: Any, *, where: str) -> Mapping:
    """A mapping from what YAML or JSON held. Raises UsageError that names `where`, the key, and what is allowed."""
    if document is None:
        return Mapping()
    if not isinstance(document, dict):
        raise UsageError(f"{where} is not a mapping", remedy=f"write names and values; known are {_keys(Mapping)}")
    try:
        return Mapping.model_validate(document)
    except ValidationError as error:
        problems = [_problem(e["loc"], e["type"], e["msg"]) for e in error.errors()]
        message, remedy = problems[0]
        more = "".join(f"; {text}" for text, _ in dict.fromkeys(problems[1:4]))
        raise UsageError(f"{where}: {message}{more}", remedy=remedy) from None


def _problem(path: Sequence[int | str], kind: str, text: str) -> tuple[str, str]:
    """What is wrong with the value at `path`, and what is allowed there."""
    parts = [str(p) for p in path if p != "[key]"]
    shown = ".".join(parts)
    if kind == "extra_forbidden":
        return f"{shown} is not known", f"known here are {_keys(_model_at(parts[:-1]))}"
    reason = text.removeprefix("Value error, ")
    return f"{shown}: {reason[:1].lower() + reason[1:]}", "correct the value; `failback import --help` shows an example"


def _model_at(parts: Sequence[str]) -> type[Model]:
    rest = list(parts[2:] if parts[:1] == ["machines"] else parts)
    if rest[:1] == ["networks"]:
        return NetworkTarget
    if rest[:1] == ["disks"]:
        return DiskTarget
    return MachineMapping if parts else Mapping


def _keys(model: type[Model]) -> str:
    return ", ".join(model.model_fields)


def _joined(below: DiskTarget | None, above: DiskTarget | None) -> DiskTarget:
    values = (below.model_dump(exclude_defaults=True) if below else {}) | (
        above.model_dump(exclude_defaults=True) if above else {}
    )
    return DiskTarget(**values)
