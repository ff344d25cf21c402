"""What a person wrote, or a file holds: read, or refused with an error that says what to do."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutate import bounded, changed, fuzz, mutated
from manifests.errors import FailbackError, UsageError
from pipeline.cli.documents import MAX_BYTES, read_document
from pipeline.exporters.blockdev import BlockDevice
from pipeline.exporters.format import FORMATS, decide_format
from pipeline.mapping import parse_mapping
from pipeline.sizes import parse_size
from pipeline.verify.checks import load_checks
from pipeline.verify.duration import parse_duration
from pipeline.verify.short import parse_hook

YAML = b"""\
name: "{name}-home"
cpus: 4
memory: 8GiB
when: 2026-01-02 03:04:05
networks: &n
  "VM Network": prod-lan
  dmz: {name: prod-dmz, model: e1000e}
  backup: null
again: [*n, *n, !!bool yes, !!int 7, !!timestamp 2026-01-02]
"""
MAPPING: dict[str, Any] = {
    "name": "{name}-home", "cpus": 4, "memory": "8GiB", "firmware": "uefi", "mac": "keep", "storage": "fast",
    "networks": {"VM Network": "prod-lan", "dmz": {"name": "x", "model": "e1000e"}, "backup": None,
                 "*": {"isolated": True}},
    "disks": {"0": {"bus": "pvscsi", "storage": "fast"}, "1": {"device": "/dev/sdb:size=42949672960"}},
    "options": {"qemu": {"accelerator": "tcg"}}, "machines": {"db-1": {"memory": "16GiB"}},
}  # fmt: skip
CHECKS: dict[str, Any] = {
    "checks": [
        {"name": "login", "hook": "console", "settings": {"text": "login:"}},
        {"name": "shop", "hook": "https", "after": ["login"], "timeout": "10s", "within": "5min",
         "settings": {"port": 443, "host": "shop.example.com", "path": "/health", "status": 200, "regex": "a+"},
         "retry": {"interval": "2s", "factor": 1.5, "max": "30s"}},
        {"name": "mail", "hook": "tcp", "settings": {"port": 25}, "level": "advisory"},
        {"name": "ssh", "hook": "ssh", "settings": {"user": "root", "command": ["true"]}},
    ]
}  # fmt: skip


@given(text=mutated([YAML]))
@example(text=b"!!bool x")
@example(text=b"!!int ''")
@example(text=b"!!timestamp x")
@example(text=b"[" * 600)
@example(text=b"when: 2026-99-99")
@fuzz(150)
def test_yaml(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(text)
    # The reader asks for all that a file may have.
    with bounded(len(text), factor=2000, limit=MAX_BYTES + (8 << 20)), contextlib.suppress(UsageError):
        read_document(str(path), yaml=True)


@given(document=changed(MAPPING))
@example(document={"name": "{name!x}"})
@example(document={"name": "{name:%}"})
@example(document={"name": "{name.a}"})
@example(document={"memory": "1" * 5000 + "GiB"})
@fuzz(200)
def test_mappings(document: Any) -> None:
    with bounded(len(repr(document)), factor=500), contextlib.suppress(UsageError):
        parse_mapping(document, where="file")


@given(document=changed(CHECKS))
@fuzz(200)
def test_checks(document: Any) -> None:
    with bounded(len(repr(document)), factor=500, limit=8 << 20), contextlib.suppress(UsageError):
        load_checks(document, "file")


WORDS = ["8GiB", "10s", "5min", "http:host@80/path?x=1=200", "tcp:25", "ssh:root@22:true", "console:login:", "nan",
         "inf", "1e999s", "-1s", "١GiB", "0x10", "9" * 5000, "exec:x", "http:", ":", "picture:a"]  # fmt: skip


@pytest.mark.parametrize("parse", [parse_size, parse_duration, parse_hook])
@given(text=st.sampled_from(WORDS) | st.text(max_size=30) | mutated([w.encode() for w in WORDS]).map(os.fsdecode))
@fuzz(150)
def test_words_of_the_command_line(parse: Any, text: str) -> None:
    with bounded(len(text), limit=8 << 20), contextlib.suppress(UsageError, ValueError):
        parse(text)


HEADS = [b"QFI\xfb" + bytes(600), b"KDMV" + bytes(600), b"# Disk DescriptorFile\n", b"vhdxfile" + bytes(600),
         bytes(600) + b"conectix".ljust(512, b"\0"), bytes(64) + b"\x7f\x10\xda\xbe" + bytes(500), b""]  # fmt: skip


@given(data=mutated(HEADS), name=st.sampled_from(["a.qcow2", "a.vmdk", "a.vhd", "a.vhdx", "a.vdi", "a.img", "a"]),
       said=st.sampled_from([None, *FORMATS]))  # fmt: skip
@fuzz(200)
def test_the_content_of_an_image_never_decides_its_format(data: bytes, name: str, said: str | None) -> None:
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        with bounded(len(data)), contextlib.suppress(UsageError):
            found = decide_format(name, fd, len(data), said)
            assert found in (
                said,
                {".img": "raw", "": "raw", ".vhd": "vpc"}.get(Path(name).suffix, Path(name).suffix[1:]),
            )
    finally:
        os.close(fd)


@given(
    page=mutated([b"\0\x80\0\x08SERIAL 1", b"\0\x80\xff\xff"]),
    stat=mutated([b"1 " * 17, b"1 0 1 1 1 1 1 1 0 1 1 1 1 1 1"]),
)
@fuzz(150)
def test_what_the_kernel_passes_on_from_a_disk(tmp_path: Path, page: bytes, stat: bytes) -> None:
    (tmp_path / "device").mkdir(exist_ok=True)
    (tmp_path / "queue").mkdir(exist_ok=True)
    (tmp_path / "device/vpd_pg80").write_bytes(page)
    (tmp_path / "serial").write_bytes(page)
    (tmp_path / "queue/iostats").write_text("1")
    (tmp_path / "diskseq").write_text("7")
    (tmp_path / "stat").write_bytes(stat)
    folders = {name: PropertyMock(return_value=tmp_path) for name in ("folder", "disk")}
    with patch.multiple(BlockDevice, **folders), bounded(len(page) + len(stat)), contextlib.suppress(FailbackError):
        device = BlockDevice(-1, "0:0")
        assert all(isinstance(serial, str) and serial for serial in device.serials())
        device.written()
