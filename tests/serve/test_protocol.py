"""Real clients find a disk that behaves as the protocol says."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import pytest
from nbd.tools import run
from transfer.support import CHUNK, MIB, Workbench

from pipeline.nbd import protocol as p
from pipeline.nbd.connection import Connection
from pipeline.nbd.protocol import NbdError
from pipeline.nbd.wire import Wire
from serve.tools import SIZE, client_of, content, link_to, listening, needs_libnbd, needs_qemu, qemu_io, read


def test_our_client_reads_the_point_and_its_own_writes(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        client = client_of(uri)
        assert client.size == SIZE
        assert client.connections == 4
        assert read(client, 0, SIZE) == content()
        client.write(1000, [b"hello", b" ", b"world"])
        client.zero(2 * MIB + 5, 300_000)
        client.trim(0, 512)  # no whole block
        client.flush()
        expected = bytearray(content())
        expected[1000:1011] = b"hello world"
        expected[2 * MIB + 5 : 2 * MIB + 300_005] = bytes(300_000)
        assert read(client, 0, SIZE) == expected
        client.trim(MIB, 8192)
        assert read(client, MIB, 8192) == bytes(8192)
        client.close()


@needs_qemu
def test_qemu_img_sees_an_equal_disk(bench: Workbench, tmp_path: Path) -> None:
    with listening(bench) as (_instant, uri):
        info = json.loads(run("qemu-img", "info", "--output=json", uri))
        assert info["virtual-size"] == SIZE
        assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, bench.root / "source.raw")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, tmp_path / "copy.qcow2")
        run("qemu-img", "compare", tmp_path / "copy.qcow2", bench.root / "source.raw")
        extents = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", uri))
        assert any(e["zero"] for e in extents)


@needs_qemu
def test_qemu_io_writes_in_every_way(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        qemu_io(
            uri,
            "write -P 0x11 0 64k",
            "write -f -P 0x22 1M 4k",
            "write -P 0x33 1234944 512",
            "write -z 2M 1M",
            "write -z -u 3M 128k",
            "discard 4M 64k",
            "flush",
            "read -P 0x11 0 64k",
            "read -P 0x22 1M 4k",
            "read -P 0x33 1234944 512",
            "read -P 0 2M 1M",
            "read -P 0 3M 128k",
        )
    with listening(bench) as (_instant, uri):
        qemu_io(uri, "read -P 0x11 0 64k", "read -P 0x22 1M 4k", "read -P 0x33 1234944 512", "read -P 0 2M 1M")


@needs_libnbd
def test_libnbd_agrees_with_everything_we_say(bench: Workbench, tmp_path: Path) -> None:
    with listening(bench) as (_instant, uri):
        info = json.loads(run("nbdinfo", "--json", uri))["exports"][0]
        assert (info["export-name"], info["export-size"], info["description"]) == ("disk0", SIZE, "vm@1 disk 0")
        for ability in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_df"):
            assert info[ability] is True, ability
        assert info["contexts"] == ["base:allocation"]
        listed = json.loads(run("nbdinfo", "--json", "--list", uri))["exports"]
        assert [e["export-name"] for e in listed] == ["disk0"]
        for options in (
            ["--requests=16"],
            ["--synchronous"],
            ["--no-extents"],
            ["--connections=4", "--request-size=65536"],
        ):
            run("nbdcopy", *options, uri, tmp_path / "copy.raw")
            assert (tmp_path / "copy.raw").read_bytes() == content(), options
            (tmp_path / "copy.raw").unlink()
        changed = tmp_path / "changed.raw"
        changed.write_bytes(bytes(reversed(content())))
        run("nbdcopy", "--flush", changed, uri)
        run("nbdcopy", uri, tmp_path / "copy.raw")
        assert (tmp_path / "copy.raw").read_bytes() == changed.read_bytes()
        extents = json.loads(run("nbdinfo", "--json", "--map", uri))
        assert sum(e["length"] for e in extents) == SIZE


def test_a_client_without_structured_replies_reads_too(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri), link_to(uri) as link:
        assert link.recv(18, 0x100)[:16] == p.NBDMAGIC + p.IHAVEOPT
        link.sendall(struct.pack(">I", p.FIXED_NEWSTYLE))  # and with the 124 zeroes
        link.sendall(p.OPTION.pack(p.IHAVEOPT, p.Option.EXPORT_NAME, 5) + b"disk0")
        answer = link.recv(10 + 124, 0x100)
        assert struct.unpack(">Q", answer[:8])[0] == SIZE
        assert answer[10:] == bytes(124)
        link.sendall(p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.Command.READ, 7, 100, 50))
        assert link.recv(16 + 50, 0x100) == p.SIMPLE_REPLY.pack(p.SIMPLE_REPLY_MAGIC, 0, 7) + content()[100:150]
        link.sendall(p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.Command.READ, 8, SIZE, 1))
        assert link.recv(16, 0x100) == p.SIMPLE_REPLY.pack(p.SIMPLE_REPLY_MAGIC, errno.EINVAL, 8)


def test_another_export_is_refused_by_name(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        with pytest.raises(p.NbdRefused, match=r"no such export \(the export is called disk0\)"):
            client_of(uri.replace("///", "///other"))
        client_of(uri.replace("///", "///disk0")).close()


def test_tcp_is_there_when_asked_and_only_on_the_loopback(bench: Workbench) -> None:
    with listening(bench) as (instant, _uri):
        port = instant.server.listen_tcp(0)
        client = client_of(f"nbd://127.0.0.1:{port}")
        assert read(client, 0, CHUNK) == content()[:CHUNK]
        assert instant.server._listeners[-1].getsockname()[0] == "127.0.0.1"
        client.close()


def test_the_socket_is_ours_alone_and_goes_with_the_server(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        path = Path(uri.partition("socket=")[2])
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_one_extent_is_given_when_one_is_asked(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        connection = Connection(Wire(link_to(uri), 20), "")
        request = p.REQUEST.pack(p.REQUEST_MAGIC, p.CommandFlag.REQ_ONE, p.Command.BLOCK_STATUS, 1, 0, SIZE)
        connection._wire.send([request])
        *_rest, length = p.STRUCTURED_REPLY.unpack(connection._wire.receive(20))
        assert struct.unpack(">III", connection._wire.receive(length)) == (1, 9 * CHUNK, 0)
        connection.close()


def test_block_status_tells_zeros_of_the_point_and_of_the_guest(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        client = client_of(uri)
        client.zero(0, CHUNK)
        client.write(4 * MIB, [b"x" * CHUNK])
        zero = bytearray(SIZE // 4096 + 1)
        for offset, length, flags in client.block_status(p.BASE_ALLOCATION, 0, SIZE):
            assert flags in (0, p.STATE_HOLE | p.STATE_ZERO)
            if flags:
                assert read(client, offset, length) == bytes(length)
            zero[offset // 4096 : -(-(offset + length) // 4096)] = bytes([flags]) * (-(-length // 4096))
        assert zero[0] == 3
        assert zero[4 * MIB // 4096] == 0
        assert zero[3 * MIB // 4096] == 3
        client.close()


def test_requests_that_cannot_be_answered_are_errors_and_the_connection_goes_on(bench: Workbench) -> None:
    with listening(bench) as (_instant, uri):
        connection = Connection(Wire(link_to(uri), 20), "")
        for command, flags, offset, length, code in (
            (p.Command.READ, 0, SIZE - 1, 2, errno.EINVAL),
            (p.Command.READ, 0, 1 << 63, 1, errno.EINVAL),
            (p.Command.READ, 0, 0, 0, errno.EINVAL),
            (p.Command.TRIM, 0, SIZE, 1, errno.EINVAL),
            (p.Command.WRITE_ZEROES, 0, SIZE, 1, errno.ENOSPC),
            (p.Command.FLUSH, 0, 1, 0, errno.EINVAL),
            (p.Command.READ, 1 << 9, 0, 1, errno.EINVAL),
            (5, 0, 0, 512, errno.EINVAL),
            (99, 0, 0, 0, errno.EINVAL),
        ):
            connection._wire.send([p.REQUEST.pack(p.REQUEST_MAGIC, flags, command, 5, offset, length)])
            connection._cookie = 5
            with pytest.raises(NbdError) as caught:
                connection._finish(5)
            assert caught.value.code == code, (command, offset, length)
        with pytest.raises(NbdError) as caught:
            connection.write(SIZE - 1, [b"ab"], 2)
        assert caught.value.code == errno.ENOSPC
        view = memoryview(bytearray(10))
        connection.read(0, view, 10, 1)
        assert view == content()[:10]
        connection.close()
