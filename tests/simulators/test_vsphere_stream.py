"""The stand-in takes our own VMDK streams, and its disk then holds the point bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, text

from pipeline.transfer.disk_stream import DiskStream, StreamOptions
from simulators.vsphere_client import Client, eventually, machine_spec, upload
from simulators.vsphere_server import VSphere


@pytest.mark.parametrize("level", [0, 1, 6])
def test_our_streams_are_taken_with_the_length_they_announce(
    client: Client, name: str, server: VSphere, tmp_path: Path, level: int
) -> None:
    bench = Workbench(tmp_path)
    source = make_disk(tmp_path / "source", 70 * MIB - 700, {0: text(MIB, 1), 40 * MIB + 9: noise(9 * CHUNK, 2)})
    bench.export(source)
    options = StreamOptions(level=level, announce=True, capacity=70 * MIB)
    stream = DiskStream(bench.repository, bench.point(), bench.disk(), options)
    lease = client.lease(machine_spec(name, size=70 * MIB))
    [url] = client.get(lease, "info").deviceUrl
    assert upload(url.url, iter(stream), length=stream.length).status == 201
    [entry] = lease.HttpNfcLeaseGetManifest()
    assert (entry.sha1, entry.size) == (stream.digest("sha1"), stream.length)
    lease.HttpNfcLeaseComplete()
    eventually(lambda: client.get(lease, "state") == "done")
    disk = Path(server.machine(name)["disks"][0]["file"])
    assert disk.read_bytes() == source.read_bytes().ljust(70 * MIB, b"\0")
