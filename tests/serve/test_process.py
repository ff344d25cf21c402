"""The command, killed while guests write: its next start has every write that was acknowledged, and they notice
nothing but a pause."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest
from transfer.support import MIB, Workbench, noise

from pipeline.nbd.protocol import NbdError, NbdLost
from pipeline.store.directory import DirectoryStore
from serve.test_chunks import flipped
from serve.tools import SIZE, Server, client_of, content, exported, needs_qemu, process, read, short_folder


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setenv("FAILBACK_REPOSITORY", str(tmp_path / "store"))
    return exported(Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True)))


def test_it_serves_fills_and_ends_on_a_signal(bench: Workbench, tmp_path: Path) -> None:
    target = tmp_path / "out" / "vm-disk0.raw"
    with short_folder() as folder:
        with process(
            "vm", "--state", tmp_path / "g", "--fill", target, "--port", 0, socket_path=folder / "s"
        ) as server:
            client = client_of(server.uri)
            assert read(client, 0, SIZE) == content()
            client.write(77, [b"guest"])
            code, out = server.end()  # with the client still there
            assert code == 0, out
            assert json.loads(out.splitlines()[-1])["ok"] is True
            with pytest.raises(NbdLost):
                read(client, 0, 1)
        status = json.loads((tmp_path / "g" / "status.json").read_text())
        assert (status["phase"], status["point"], status["total"]) == ("ended", "vm@1", SIZE)
        assert not (folder / "s").exists()
        with process("vm@1", "--state", tmp_path / "g", "--fill", target, socket_path=folder / "s") as server:
            assert read(client_of(server.uri), 77, 5) == b"guest"


def test_it_ends_with_its_last_client_when_asked(bench: Workbench, tmp_path: Path) -> None:
    with (
        short_folder() as folder,
        process("vm", "--state", tmp_path / "g", "--until-disconnected", socket_path=folder / "s") as server,
    ):
        first, second = client_of(server.uri, connections=1), client_of(server.uri, connections=1)
        first.close()
        assert read(second, 0, 10) == content()[:10]
        second.close()
        server.process.communicate(timeout=20)
        assert server.process.returncode == 0


def test_a_second_server_is_refused_and_the_first_goes_on(bench: Workbench, tmp_path: Path) -> None:
    with short_folder() as folder, process("vm", "--state", tmp_path / "g", socket_path=folder / "s") as server:
        for state, path in (("g", "other"), ("h", "s")):
            second = Server(["vm", "--state", str(tmp_path / state), "--socket", str(folder / path)], folder / path)
            _out, err = second.process.communicate(timeout=20)
            assert second.process.returncode == 7
            assert "another server" in err
        assert read(client_of(server.uri), 0, SIZE) == content()


def test_acknowledged_writes_survive_a_killed_server(bench: Workbench, tmp_path: Path) -> None:
    with short_folder() as folder:
        expected = bytearray(content())
        for turn in range(3):
            with process("vm", "--state", tmp_path / "g", socket_path=folder / "s") as server:
                client = client_of(server.uri, connections=1)
                assert read(client, 0, SIZE) == expected
                timer = threading.Timer(0.3, server.process.kill)
                timer.start()
                try:
                    for number in range(1_000_000):
                        data = noise(9000, (turn, number))
                        offset = number * 12345 % (SIZE - 9000)
                        client.write(offset, [data])
                        expected[offset : offset + 9000] = data
                except NbdLost:
                    pass
                # The write that was not acknowledged may be there, block by block.
                unsure = (offset, offset + 9000)
            with process("vm", "--state", tmp_path / "g", socket_path=folder / "s") as server:
                found = read(client_of(server.uri), 0, SIZE)
                low, high = unsure[0] // 4096 * 4096, -(-unsure[1] // 4096) * 4096
                assert found[:low] + found[high:] == expected[:low] + expected[high:]
                expected[low:high] = found[low:high]


class QemuIo:
    """qemu-io as a machine's block layer. It takes a line only after its prompt: what comes earlier it may not see."""

    def __init__(self, options: str) -> None:
        self.process = subprocess.Popen(
            ["stdbuf", "-o0", "qemu-io", "--image-opts", options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.said = ""
        self.prompt()

    def prompt(self) -> None:
        assert self.process.stdout is not None
        seen = len(self.said)
        while not self.said.endswith("qemu-io> ") or len(self.said) == seen:
            letter = self.process.stdout.read(1)
            assert letter, f"qemu-io ended: {self.said}"
            self.said += letter

    def start(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")

    def do(self, *commands: str) -> None:
        for command in commands:
            self.start(command)
            self.prompt()


@needs_qemu
def test_qemu_goes_on_over_a_killed_server_without_an_error(bench: Workbench, tmp_path: Path) -> None:
    arguments = ("vm", "--state", tmp_path / "g", "--fill", tmp_path / "out" / "d.raw")
    with short_folder() as folder:
        with process(*arguments, socket_path=folder / "s") as server:
            guest = QemuIo(f"driver=nbd,server.type=unix,server.path={folder / 's'},reconnect-delay=60")
            guest.do("write -P 0x11 0 1M", "flush", "write -P 0x22 1M 1M")
            for number in range(4):  # some of them under way
                guest.do(f"aio_write -P {0x40 + number} {2 * MIB + number * 65536} 64k")
            server.kill()
            for number in range(4, 8):
                guest.do(f"aio_write -P {0x40 + number} {2 * MIB + number * 65536} 64k")
            guest.start("flush")
        with process(*arguments, socket_path=folder / "s") as server:
            guest.prompt()
            guest.do("aio_flush", "read -P 0x22 1M 1M", "read -P 0x11 0 1M", "read -P 0x47 2555904 64k", "flush")
            guest.start("quit")
            assert guest.process.wait(20) == 0
            assert "failed" not in guest.said, guest.said
            client = client_of(server.uri)
            assert read(client, 0, 2 * MIB) == b"\x11" * MIB + b"\x22" * MIB
            assert read(client, 2 * MIB, MIB // 2) == b"".join(bytes([0x40 + n]) * 65536 for n in range(8))


def test_damage_is_logged_with_its_place(bench: Workbench, tmp_path: Path) -> None:
    flipped(bench, 5)
    with short_folder() as folder, process("vm", "--state", tmp_path / "g", socket_path=folder / "s") as server:
        client = client_of(server.uri)
        with pytest.raises(NbdError, match=r"content|damaged"):
            read(client, 5 * 65536, 100)
        server.end()
    log = (tmp_path / "state" / "failback.log").read_text()
    assert "disk 0: what belongs at byte 327680 cannot be had: packs/" in log


def test_merge_and_drop_are_commands(bench: Workbench, tmp_path: Path) -> None:
    target = tmp_path / "out" / "vm-disk0.raw"
    with short_folder() as folder:
        with process("vm", "--state", tmp_path / "g", "--fill", target, socket_path=folder / "s") as server:
            client_of(server.uri).write(0, [b"guest"])
            server.end()

        def finish(*more: str) -> tuple[int, str]:
            arguments = ["vm", "--state", str(tmp_path / "g"), *more]
            running = Server(arguments, folder / "s")
            out, err = running.process.communicate(timeout=20)
            return running.process.returncode, out + err

        bench.restore()  # whatever the fill had left
        assert finish("--merge", "--drop")[0] == 2
        assert finish("--merge")[0] == 2
        assert finish()[0] == 2
        code, out = finish("--merge", "--fill", str(target))
        assert (code, json.loads(out)["merged"]) == (0, 4096)
        assert target.read_bytes() == b"guest" + content()[5:]
        assert json.loads(finish("--drop")[1])["dropped"] is False


def test_another_machine_s_overlay_is_not_dropped_by_mistake(bench: Workbench, tmp_path: Path) -> None:
    with short_folder() as folder:
        with process("vm", "--state", tmp_path / "g", socket_path=folder / "s") as server:
            server.end()
        for name in ("web", "vm@2"):
            running = Server([name, "--state", str(tmp_path / "g"), "--drop"], folder / "s")
            _out, err = running.process.communicate(timeout=20)
            assert running.process.returncode == 2
            assert "wrote on vm@1 disk 0" in err
    assert (tmp_path / "g" / "overlay").exists()
