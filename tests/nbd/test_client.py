"""The NBD client against real servers, and the exporter on top of it."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from exporters.conftest import read, sparse_content, write_sparse

from nbd.tools import nbdkit, needs_nbdkit, needs_qemu, qemu_nbd, run
from pipeline.errors import SourceChanged, SourceError, TargetError, TargetFull, Unreadable, UsageError
from pipeline.exporters.nbd import NbdExporter
from pipeline.exporters.open import open_exporter
from pipeline.nbd.address import Address
from pipeline.nbd.client import NbdClient
from pipeline.nbd.protocol import NbdError
from pipeline.writers.open import open_writer

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> tuple[Path, bytes]:
    content = sparse_content(6 * MIB + 1000)
    path = tmp_path / "disk.raw"
    write_sparse(path, content)
    return path, content


def client_of(uri: str, **options: int) -> NbdClient:
    address = Address.parse(uri)
    return NbdClient(lambda: address.connect(10), address.export, timeout=10, **options)


def bad_sectors(path: Path, *bad: int) -> list[str]:
    """An nbdkit eval plugin that fails every read that touches one of these sectors."""
    tests = " || ".join(f"( [ $4 -le {sector * 512 + 511} ] && [ $(($4 + $3)) -gt {sector * 512} ] )" for sector in bad)
    pread = f"if {tests}; then echo EIO medium error >&2; exit 1; fi; "
    pread += f"dd if={path} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=65536 status=none"
    return ["eval", f"get_size=stat -Lc %s {path}", f"pread={pread}"]


@needs_nbdkit
@pytest.mark.parametrize(
    "options", [[], ["--no-sr"], ["--filter=multi-conn", "multi-conn-mode=disable"], ["--filter=noextents"]]
)
def test_servers_of_all_abilities_are_read(disk: tuple[Path, bytes], tmp_path: Path, options: list[str]) -> None:
    path, content = disk
    flags = [option for option in options if option.startswith("--")]
    settings = [option for option in options if not option.startswith("--")]
    with nbdkit(tmp_path, "--readonly", *flags, "file", path, *settings) as server:
        exporter = open_exporter(server.uri)
        assert exporter.read_threads == (1 if settings else 4)
        assert read(exporter, 0, exporter.size) == content
        known = sum(extent.length for extent in exporter.extents(0, exporter.size) if extent.zero)
        assert (known == 0) == (flags in (["--no-sr"], ["--filter=noextents"]))
        exporter.close()


@needs_nbdkit
def test_a_server_over_tcp_is_read(disk: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = disk
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", str(port), "file", str(path)])
    try:
        deadline = time.monotonic() + 20
        exporter = None
        while exporter is None and time.monotonic() < deadline:
            with contextlib.suppress(SourceError):
                exporter = open_exporter(f"nbd://127.0.0.1:{port}")
        assert exporter is not None
        assert read(exporter, 0, exporter.size) == content
        exporter.close()
    finally:
        server.kill()
        server.wait()


@needs_nbdkit
def test_blocks_that_a_server_does_not_divide_are_read_and_written_whole(tmp_path: Path) -> None:
    with nbdkit(
        tmp_path,
        "--filter=blocksize-policy",
        "memory",
        "1M",
        "blocksize-minimum=4096",
        "blocksize-maximum=65536",
        "blocksize-error-policy=error",
    ) as server:
        writer = open_writer(server.uri, size=MIB)
        truth = bytearray(MIB)
        source = random.Random(4)
        for _ in range(150):
            start = source.randrange(MIB)
            length = source.randint(0, min(200_000, MIB - start))
            data = source.randbytes(length)
            if source.random() < 0.3:
                writer.discard(start, length)
                truth[start : start + length] = bytes(length)
            else:
                writer.write(start, [data[: length // 3], data[length // 3 :]])
                truth[start : start + length] = data
            some = source.randrange(MIB)
            buffer = bytearray(min(5000, MIB - some))
            writer.read_into(some, memoryview(buffer))
            assert buffer == truth[some : some + len(buffer)]
        writer.flush()
        whole = bytearray(MIB)
        writer.read_into(0, memoryview(whole))
        assert whole == truth
        writer.close()


@needs_nbdkit
def test_writers_that_meet_inside_one_block_do_not_lose_bytes(tmp_path: Path) -> None:
    with nbdkit(
        tmp_path, "--filter=blocksize-policy", "memory", "64k", "blocksize-minimum=65536", "blocksize-preferred=65536"
    ) as server:
        client = client_of(server.uri)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: client.write(index * 100, [bytes([index % 255 + 1]) * 100]), range(600)))
        buffer = bytearray(60_000)
        client.read(0, memoryview(buffer))
        assert buffer == b"".join(bytes([index % 255 + 1]) * 100 for index in range(600))
        client.close()


@needs_nbdkit
def test_an_unreadable_sector_is_named_exactly(disk: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = disk
    with nbdkit(tmp_path, "--readonly", *bad_sectors(path, 700, 701, 3000)) as server:
        exporter = open_exporter(server.uri)
        with pytest.raises(Unreadable) as caught:
            read(exporter, 0, exporter.size)
        assert (caught.value.offset, caught.value.length) == (700 * 512, 1024)
        assert read(exporter, 0, 700 * 512) == content[: 700 * 512]
        with pytest.raises(Unreadable) as caught:
            read(exporter, 702 * 512, exporter.size - 702 * 512)
        assert (caught.value.offset, caught.value.length) == (3000 * 512, 512)
        exporter.close()


@needs_nbdkit
def test_a_full_server_is_a_full_target(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%") as server:
        writer = open_writer(server.uri, size=MIB)
        with pytest.raises(TargetFull, match="cannot write 65536 bytes at 512"):
            writer.write(512, [b"x" * 65_536])
        writer.close()


@needs_nbdkit
def test_a_server_that_cannot_flush_is_no_target(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "full", "1M") as server, pytest.raises(TargetError, match="no flush"):
        open_writer(server.uri, size=MIB)


@needs_nbdkit
def test_failed_writes_are_told_and_the_connection_goes_on(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "--filter=error", "memory", "1M", "error-pwrite=EIO", "error-pwrite-rate=100%") as server:
        writer = open_writer(server.uri, size=MIB)
        for _ in range(3):
            with pytest.raises(TargetError, match="cannot write 512 bytes at 4096"):
                writer.write(4096, [b"x" * 512])
        buffer = bytearray(512)
        writer.read_into(4096, memoryview(buffer))
        assert buffer == bytes(512)
        writer.close()


@needs_nbdkit
def test_a_read_only_export_is_no_target(disk: tuple[Path, bytes], tmp_path: Path) -> None:
    with nbdkit(tmp_path, "--readonly", "file", disk[0]) as server, pytest.raises(TargetError, match="read-only"):
        open_writer(server.uri, size=1)


@needs_nbdkit
def test_a_server_killed_in_the_middle_is_a_clear_error_for_every_thread(
    disk: tuple[Path, bytes], tmp_path: Path
) -> None:
    with nbdkit(tmp_path, "--readonly", "--filter=delay", "file", disk[0], "rdelay=200ms") as server:
        exporter = open_exporter(server.uri)
        with ThreadPoolExecutor(6) as pool:
            reads = [pool.submit(read, exporter, 0, 4 * MIB) for _ in range(6)]
            threading.Timer(0.3, server.kill).start()
            errors = [future.exception(timeout=30) for future in reads]
        assert any(errors)
        for error in filter(None, errors):
            assert type(error) is SourceError
            assert "start again" in str(error)
        with pytest.raises(SourceError):
            read(exporter, 0, 1)
        exporter.close()


@needs_nbdkit
def test_a_server_that_falls_silent_is_given_up(disk: tuple[Path, bytes], tmp_path: Path) -> None:
    with nbdkit(tmp_path, "--readonly", "--filter=delay", "file", disk[0], "rdelay=30") as server:
        address = Address.parse(server.uri)
        exporter = NbdExporter("slow", NbdClient(lambda: address.connect(5), "", timeout=0.3))
        with pytest.raises(SourceError, match=r"did not answer for 0\.3 s"):
            read(exporter, 0, 512)
        exporter.close()


@needs_nbdkit
def test_a_missing_export_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(512))
    with nbdkit(tmp_path, "file", f"dir={folder}") as server:
        assert open_exporter(server.uri.replace("///?", "///a?")).size == 512
        with pytest.raises(SourceError, match="nbd\\+unix"):
            open_exporter(server.uri.replace("///?", "///b?"))


def test_nobody_listening_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot connect"):
        open_exporter(f"nbd+unix:///?socket={tmp_path}/none")


@needs_nbdkit
def test_a_format_is_not_asked_of_an_nbd_export(disk: tuple[Path, bytes], tmp_path: Path) -> None:
    with nbdkit(tmp_path, "file", disk[0]) as server, pytest.raises(UsageError, match="as it is"):
        open_exporter(server.uri, image_format="qcow2")


@needs_qemu
def test_an_export_that_changes_its_size_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(MIB))
    with qemu_nbd(tmp_path, "--read-only", "--shared=9", "--format=raw", path) as server:
        exporter = open_exporter(server.uri)
        exporter.check_unchanged()
    path.write_bytes(bytes(2 * MIB))
    with pytest.raises((SourceError, SourceChanged)):
        exporter.check_unchanged()


@needs_qemu
def test_a_dirty_bitmap_of_a_remote_server_is_read(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "32M")
    run("qemu-img", "bitmap", "--add", "-g", "65536", image, "b0")
    run("qemu-io", "-f", "qcow2", "-c", "write 1M 1", "-c", "write 20M 70000", image)
    with qemu_nbd(tmp_path, "--read-only", "--format=qcow2", "--bitmap=b0", image) as server:
        exporter = open_exporter(server.uri)
        assert exporter.change_maps() == ["b0"]
        assert list(exporter.changed_extents("b0")) == [(MIB, 65_536), (20 * MIB, 131_072)]
        exporter.close()


@needs_nbdkit
def test_requests_outside_of_the_export_are_not_sent(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "memory", "1M") as server:
        client = client_of(server.uri)
        for offset, length in ((MIB, 1), (-1, 1), (0, MIB + 1)):
            with pytest.raises(ValueError, match="past the end"):
                client.read(offset, memoryview(bytearray(length)))
            with pytest.raises(ValueError, match="past the end"):
                client.write(offset, [bytes(length)])
            with pytest.raises(ValueError, match="past the end"):
                client.zero(offset, length)
        client.close()


@needs_nbdkit
def test_large_reads_under_way_together_end_with_the_first_error_and_go_on(
    disk: tuple[Path, bytes], tmp_path: Path
) -> None:
    path, content = disk
    with nbdkit(tmp_path, "--readonly", *bad_sectors(path, 9000)) as server:
        client = client_of(server.uri, connections=1)
        for _ in range(3):
            with pytest.raises(NbdError) as caught:
                client.read(0, memoryview(bytearray(len(content))))
            assert caught.value.code == 5
            buffer = bytearray(1000)
            client.read(5, memoryview(buffer))
            assert buffer == content[5:1005]
        client.close()
