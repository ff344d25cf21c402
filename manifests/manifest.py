"""The manifest: one recovery point of one machine (FORMAT.md, section 8)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from manifests.envelope import Kind, open_by_place, seal_by_place
from manifests.errors import CorruptObject, NewerFormat, UsageError
from manifests.machine import Machine, Model
from manifests.names import MAX_SEQUENCE, manifest_key
from manifests.page import SEGMENT_ENTRIES
from manifests.repository import check_chunk_size
from manifests.sealing import Sealing
from manifests.text import Shown, to_json

Consistency = Literal["torn", "crash", "filesystem", "application"]
"""torn: the disk changed while it was read. crash: as after a power cut. filesystem, application: quiesced."""

Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""An id in lower-case hexadecimal, 64 digits."""


TIER_SEGMENTS = 64
"""A tier of more segments names them in an object of its own, which later points share."""
MAX_UNREADABLE = 65536
"""Ranges of a disk that are listed as unreadable; with more of them neighbours are joined."""


class Segment(Model):
    """One overlay segment: its object, its first and last position, how many entries."""

    id: Hex
    first: int = Field(ge=0)
    last: int = Field(ge=0)
    count: int = Field(ge=1, le=SEGMENT_ENTRIES)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.count > self.last - self.first + 1:
            raise ValueError("a segment has more entries than positions")
        return self


def check_ascending(segments: Sequence[Segment]) -> None:
    """Segments of a tier ascend and do not meet; ValueError."""
    if any(a.last >= b.first for a, b in pairwise(segments)):
        raise ValueError("the segments of a tier do not ascend")


class Tier(Model):
    """One overlay tier: up to 64 segments that ascend and do not meet, or the segment table that names them."""

    segments: tuple[Segment, ...] = Field(default=(), max_length=TIER_SEGMENTS)
    table: Hex | None = Field(default=None, description="id of the segment table, where there are more than 64")
    count: int = Field(default=0, ge=0, description="entries of all segments")

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, values: Any) -> Any:
        """A tier made of segments need not be told how many entries they have."""
        if isinstance(values, dict) and "count" not in values and isinstance(values.get("segments"), tuple):
            return values | {"count": sum(s.count for s in values["segments"] if isinstance(s, Segment))}
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_ascending(self.segments)
        if self.table is None and self.count != sum(s.count for s in self.segments):
            raise ValueError("a tier's segments do not have the number of entries it says")
        if self.table is not None and (self.segments or self.count <= TIER_SEGMENTS):
            raise ValueError("a tier with a segment table has segments of its own, or too few entries")
        return self


class Index(Model):
    """Where the chunks of a disk are: a page directory and up to four tiers over it, newest first."""

    pages: Hex
    tiers: tuple[Tier, ...] = Field(default=(), max_length=4)


def _chunk_size(size: int) -> int:
    try:
        return check_chunk_size(size)
    except UsageError as error:
        raise ValueError(error.message) from error


class Disk(Model):
    """One disk of a recovery point."""

    number: int = Field(ge=0, description="order at the machine, from 0")
    lineage: str = Field(pattern="^[0-9a-f]{32}$", description="the same for all points of one disk")
    name: Shown = Field(description="what the user called it at the source: path or URL")
    size: int = Field(ge=0, description="bytes")
    sector_size: int = 512
    chunk_size: Annotated[int, AfterValidator(_chunk_size)]
    bus: Shown = ""
    boot: bool = False
    serial: Shown = ""
    source_format: Shown = Field(default="raw", description="raw, qcow2, vmdk, vhdx, device, nbd, …")
    digest: Hex = Field(description="Merkle digest")
    index: Index
    packs: tuple[Hex, ...] = Field(default=(), description="pack lists: those of the base, then changes")
    base_lists: int = Field(default=0, ge=0, description="how many of the pack lists are the base")
    unreadable: tuple[tuple[int, int], ...] = Field(
        default=(),
        max_length=MAX_UNREADABLE,
        description="(offset, length) in bytes that the source could not read; they restore as zeros. Where there were"
        " more than 65,536 ranges neighbours are joined: the flags of the entries stay exact",
    )
    change_maps: tuple[Shown, ...] = Field(
        default=(), description="changed-block maps of the source that were empty at this point: they begin here"
    )
    stored_bytes: int = Field(default=0, ge=0, description="bytes of packs that this point added")
    live_bytes: int = Field(default=0, ge=0, description="stored bytes of all chunks this point refers to")
    data_bytes: int = Field(default=0, ge=0, description="bytes of chunks that are not zero")

    @model_validator(mode="after")
    def _lists(self) -> Self:
        if self.base_lists > len(self.packs) or (self.packs and not self.base_lists):
            raise ValueError(f"{self.base_lists} of {len(self.packs)} pack lists cannot be the base")
        return self

    @property
    def positions(self) -> int:
        return -(-self.size // self.chunk_size)


class Parent(Model):
    """The point this one was compared with."""

    sequence: int = Field(ge=1)
    manifest: Hex = Field(description="BLAKE3 of the parent's manifest object")


class Manifest(Model):
    """One recovery point. Always complete: a restore never walks a chain."""

    format: Literal[1] = 1
    machine: Machine
    sequence: int = Field(ge=1, le=MAX_SEQUENCE)
    parent: Parent | None = None
    bases: tuple[str, ...] = Field(default=(), description="MACHINE@POINT that chunks were shared with")
    started: str = Field(description="RFC 3339, UTC, writer's clock")
    time: str = Field(description="when the point was complete; RFC 3339, UTC, writer's clock")
    tool: str
    run: str = Field(description="<sequence>-<attempt> of the session that wrote it")
    consistency: Consistency
    final: bool = Field(default=False, description="taken after the machine was stopped, for a cutover")
    set: str | None = Field(default=None, description="id of the set of points taken at one barrier")
    tags: dict[Shown, Shown] = Field(default_factory=dict, description="the user's own; absent when there are none")
    disks: tuple[Disk, ...]

    @model_validator(mode="after")
    def _distinct_disks(self) -> Self:
        if len({d.number for d in self.disks}) < len(self.disks) or len({d.lineage for d in self.disks}) < len(
            self.disks
        ):
            raise ValueError("two disks have one number or one lineage")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_tags(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        if not document["tags"]:
            del document["tags"]
        return document

    @property
    def label(self) -> str:
        return f"{self.machine.name}@{self.sequence}"

    def encode(self, sealing: Sealing) -> bytes:
        """The stored object."""
        key = manifest_key(self.machine.name, self.sequence)
        return seal_by_place(Kind.MANIFEST, to_json(self.model_dump(mode="json")), sealing=sealing, key=key)

    @classmethod
    def parse(cls, plain: bytes, *, name: str) -> Manifest:
        try:
            return cls.model_validate_json(plain)
        except ValidationError as error:
            if any(e["loc"] == ("format",) or e["type"] == "extra_forbidden" for e in error.errors()):
                raise NewerFormat(
                    f"{name} was written by a newer failback: {error}", remedy="upgrade failback on this host"
                ) from error
            raise CorruptObject(f"{name} is not a valid manifest: {error}") from error


def decode_manifest(data: bytes | memoryview, *, sealing: Sealing, key: str) -> Manifest | None:
    """The manifest found at `key`, or None for a void record. Raises FormatError."""
    kind, plain = open_by_place(data, Kind.MANIFEST, Kind.VOID, sealing=sealing, key=key)
    return Manifest.parse(plain, name=key) if kind == Kind.MANIFEST else None


def encode_record(kind: Kind, document: dict[str, Any], *, sealing: Sealing, key: str) -> bytes:
    """Stored bytes of a small JSON record for `key`: tombstone, void record, session, heartbeat, session end."""
    return seal_by_place(kind, to_json(document), sealing=sealing, key=key)


def decode_record(data: bytes | memoryview, kind: Kind, *, sealing: Sealing, key: str) -> dict[str, Any]:
    """The JSON record found at `key`. Raises FormatError."""
    _kind, plain = open_by_place(data, kind, sealing=sealing, key=key)
    try:
        document = json.loads(plain)
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"{key} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptObject(f"{key} is not a record")
    return document
