"""Plans as text: YAML 1.2 without surprises, as values that JSON can hold.

Of what PyYAML's own loader does this leaves out: `off`, `no` and `on` are texts and no truth values, `22:00` is a text
and not 1320, a date is a text. A key that stands twice is refused: one of the two would be lost without a word.
"""

from __future__ import annotations

import re
from typing import Any

from yaml import MappingNode, Node, SafeDumper, SafeLoader, ScalarNode, SequenceNode, YAMLError, dump
from yaml.constructor import ConstructorError

from pipeline.errors import UsageError
from pipeline.plans.model import Plan

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000
"""What aliases unfold to, too."""
MAX_DEPTH = 50


def read_yaml(text: str, *, where: str) -> Any:
    """Values of JSON. Raises UsageError that names `where`."""
    remedy = "correct the file"
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{where} has {len(text):,} characters", remedy=f"a plan has {MAX_CHARACTERS:,} at most")
    try:
        loader = _Loader(text)
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
    except (YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{where} cannot be understood: {said}", remedy=remedy) from None
    try:
        return _Plain().of(found, "", 0)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", remedy=remedy) from None


def write_yaml(document: dict[str, Any]) -> str:
    """What `read_yaml` reads as `document`, in the order in which plans are written."""
    order = {name: number for number, name in enumerate(Plan.model_fields)}
    sorted_ = dict(sorted(document.items(), key=lambda item: order.get(item[0], len(order))))
    return str(dump(sorted_, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))


class _Loader(SafeLoader):
    """See the module's docstring."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the base has it

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._merged = 0

    def flatten_mapping(self, node: MappingNode) -> None:
        """Merges of merges multiply: they are counted before they are made."""
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for part in value.value if isinstance(value, SequenceNode) else [value]:
                    if isinstance(part, MappingNode):
                        self.flatten_mapping(part)
                        self._merged += len(part.value)
                    if self._merged > MAX_VALUES:
                        problem = f"it merges more than {MAX_VALUES:,} values"
                        raise ConstructorError(None, None, problem, node.start_mark)
        super().flatten_mapping(node)

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, MappingNode):
            seen = set()
            for key_node, _value in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str | int | float | bool | None):
                    raise ConstructorError(None, None, "a key is no text", key_node.start_mark)
                if str(key) in seen:
                    raise ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
                seen.add(str(key))
        return super().construct_mapping(node, deep=deep)  # type: ignore[arg-type]  # of the stubs


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+0123456789."),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


class _Dumper(SafeDumper):
    """Quotes what any YAML takes for something else than text: 1.1, as SafeDumper does, and 1.2."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> Any:
        found = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]  # of PyYAML
        if kind is ScalarNode and implicit[0] and found == self.DEFAULT_SCALAR_TAG:
            for tag, pattern in _Loader.yaml_implicit_resolvers.get(value[:1], []):
                if pattern.match(value):
                    return tag
        return found


def _int(loader: SafeLoader, node: Any) -> int:
    """PyYAML's reads 010 as eight."""
    text = str(loader.construct_scalar(node))
    digits = text.lstrip("+-")
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    value = int(digits[2:] if base != 10 else digits, base)
    return -value if text.startswith("-") else value


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


class _Plain:
    def __init__(self) -> None:
        self.count = 0

    def of(self, value: Any, at: str, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"{at[:80]} is nested more than {MAX_DEPTH} deep")
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            if value - value != 0:
                raise ValueError(f"{at} is {value}, which is no number")
            return value
        if isinstance(value, dict):
            return {self.key(k, at): self.of(v, f"{at}.{k}".lstrip("."), depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(v, f"{at}[{n}]", depth + 1) for n, v in enumerate(value)]
        raise ValueError(f"{at or 'the document'} is a {type(value).__name__}; write text, numbers, lists and mappings")

    def key(self, key: Any, at: str) -> str:
        if isinstance(key, str | int) and not isinstance(key, bool):
            return str(key)
        raise ValueError(f"{f'{at} has ' if at else ''}the key {key!r}: write it in quotes")
