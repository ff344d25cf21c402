"""Every kind of source comes back equal on every kind of target, also as QEMU sees it, at first and after a refresh."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from exporters.conftest import kind, sparse_content, spec_of
from nbd.tools import loop, needs_qemu, needs_root, run

from pipeline.exporters.open import open_exporter
from transfer.support import CHUNK, MIB, Workbench, allocated

__all__ = ["kind", "spec_of"]
pytestmark = needs_qemu

SIZE = 3 * MIB + 12_345
TARGETS = ["raw", "qcow2", "vmdk", pytest.param("device", marks=needs_root)]
QEMU_NAMES = {"loop": "raw", "nbdkit": "raw", "qemu-nbd": "raw"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_disk_comes_back_as_qemu_sees_it(
    bench: Workbench, tmp_path: Path, kind: str, target: str, spec_of: Callable[[bytes], tuple[str, bytes]]
) -> None:
    content = sparse_content(SIZE, seed=3)
    changed = content[:CHUNK] + b"changed" + content[CHUNK + 7 : MIB] + bytes(CHUNK) + content[MIB + CHUNK :]
    with contextlib.ExitStack() as stack:
        device = ""
        if target == "device":
            backing = tmp_path / "backing"
            backing.write_bytes(b"\xa5" * (5 * MIB))
            device = stack.enter_context(loop(backing))
        for turn, wanted in enumerate((content, changed)):
            spec, rounded = spec_of(wanted)
            exporter = open_exporter(spec)
            try:
                bench.export(exporter)
            finally:
                exporter.close()
            if device:
                [done] = bench.restore(devices={0: f"{device}:size={5 * MIB}"})
            else:
                [done] = bench.restore(image_format=target)
            assert done.mode == ("refresh" if turn else "hashed" if device else "full"), done.reason
            path = device or str(bench.restored(image_format=target))
            seen = "raw" if device else target
            run("qemu-img", "compare", "-f", QEMU_NAMES.get(kind, kind), "-F", seen, spec, path)
            back = tmp_path / "back.raw"
            run("qemu-img", "convert", "-f", seen, "-O", "raw", path, back)
            there = back.read_bytes()
            assert there[: len(rounded)] == rounded
            assert not any(there[len(rounded) :])
            if target == "raw":
                assert Path(path).read_bytes() == rounded
                assert allocated(Path(path)) <= 1.02 * allocated(tmp_path / "disk.raw") + 4096
