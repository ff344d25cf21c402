"""One disk, served by every kind of exporter."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbd.tools import loop, nbdkit, needs_nbdkit, needs_qemu, needs_root, qemu_nbd, run

from pipeline.exporters.base import Exporter
from pipeline.exporters.open import open_exporter

KINDS = [
    pytest.param("raw"),
    pytest.param("loop", marks=needs_root),
    pytest.param("nbdkit", marks=needs_nbdkit),
    pytest.param("qemu-nbd", marks=needs_qemu),
    *(pytest.param(kind, marks=needs_qemu) for kind in ("qcow2", "vmdk", "vhdx", "vpc", "vdi")),
]
STEP = {"loop": 512, "qemu-nbd": 512, "qcow2": 512, "vmdk": 512, "vpc": 512, "vdi": 1 << 20, "vhdx": 1 << 20}
"""What a kind's sizes are rounded up to."""

Opener = Callable[[bytes], tuple[Exporter, bytes]]


def sparse_content(size: int, seed: int = 1) -> bytes:
    """Data and zeros in turns, with borders anywhere."""
    source = random.Random(seed)
    content = bytearray(size)
    position = 0
    while position < size:
        position += source.choice([0, 1, 511, 4096, 65_536, 300_000])
        length = source.choice([1, 100, 512, 5000, 65_536, 200_000])
        content[position : position + length] = source.randbytes(max(0, min(length, size - position)))
        position += length + source.choice([0, 700_000, 1_500_000])
    return bytes(content)


def write_sparse(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, len(content), 4096):
            block = content[start : start + 4096]
            if block.count(0) != len(block):
                file.seek(start)
                file.write(block)
        file.truncate(len(content))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spec_of(kind: str, tmp_path: Path) -> Iterator[Callable[[bytes], tuple[str, bytes]]]:
    """Put content on a disk of that kind: what the user writes to name it, and the content as rounded."""
    with contextlib.ExitStack() as stack:

        def make(content: bytes) -> tuple[str, bytes]:
            step = STEP.get(kind, 1)
            content += bytes(-len(content) % step)
            raw = tmp_path / "disk.raw"
            write_sparse(raw, content)
            if kind == "raw":
                return str(raw), content
            if kind == "loop":
                return stack.enter_context(loop(raw)), content
            if kind == "nbdkit":
                return stack.enter_context(nbdkit(tmp_path, "--readonly", "file", raw)).uri, content
            if kind == "qemu-nbd":
                return stack.enter_context(
                    qemu_nbd(tmp_path, "--read-only", "--shared=9", "--format=raw", raw)
                ).uri, content
            image = tmp_path / f"disk.{kind}"
            options = ["-o", "force_size=on"] if kind == "vpc" else []
            run("qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, image)
            return str(image), content

        yield make


@pytest.fixture
def opened(spec_of: Callable[[bytes], tuple[str, bytes]]) -> Iterator[Opener]:
    """The same, opened."""
    with contextlib.ExitStack() as stack:

        def make(content: bytes) -> tuple[Exporter, bytes]:
            spec, rounded = spec_of(content)
            exporter = open_exporter(spec)
            stack.callback(exporter.close)
            return exporter, rounded

        yield make


def read(exporter: Exporter, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xa5" * length)
    exporter.read_into(offset, memoryview(buffer))
    return bytes(buffer)
