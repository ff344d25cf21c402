"""One empty target disk of every kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nbd.tools import loop, needs_nbdkit, needs_qemu, needs_root, qemu_nbd

from pipeline.writers.base import BlockWriter
from pipeline.writers.open import open_writer

KINDS = [
    pytest.param("raw"),
    pytest.param("loop", marks=needs_root),
    pytest.param("loop4k", marks=needs_root),
    pytest.param("nbd", marks=[needs_qemu, needs_nbdkit]),
    *(pytest.param(kind, marks=needs_qemu) for kind in ("qcow2", "vmdk", "vhdx", "vpc")),
]


@dataclass
class Target:
    """A place for a disk; `create` makes it and opens it, `reopen` opens what is there."""

    kind: str
    name: str
    size: int
    file: Path

    def create(self) -> BlockWriter:
        return self._open(create=True)

    def reopen(self) -> BlockWriter:
        return self._open(create=False)

    def _open(self, *, create: bool) -> BlockWriter:
        size = self.file.stat().st_size if self.kind.startswith("loop") else None
        return open_writer(self.name, size=self.size, create=create, expect_size=size)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target_of(kind: str, tmp_path: Path) -> Iterator[Callable[[int], Target]]:
    with contextlib.ExitStack() as stack:

        def make(size: int) -> Target:
            file = tmp_path / f"disk.{'raw' if kind in ('loop', 'loop4k', 'nbd') else kind}"
            if kind in ("loop", "loop4k", "nbd"):
                with file.open("wb") as stream:
                    stream.truncate(-(-size // 4096) * 4096)
            if kind.startswith("loop"):
                options = ["--sector-size", "4096"] if kind == "loop4k" else []
                return Target(kind, stack.enter_context(loop(file, *options)), size, file)
            if kind == "nbd":
                uri = stack.enter_context(qemu_nbd(tmp_path, "--shared=9", "--format=raw", file)).uri
                return Target(kind, uri, size, file)
            return Target(kind, str(file), size, file)

        yield make


def read_back(writer: BlockWriter, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xa5" * length)
    writer.read_into(offset, memoryview(buffer))
    return bytes(buffer)
