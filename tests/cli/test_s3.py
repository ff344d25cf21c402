"""The commands on a real S3 server, and documents that are read from and written to one."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from backends import login
from servers import Server

from cli.conftest import CHUNK, Run
from pipeline.cli.documents import read_document, write_json
from pipeline.errors import UsageError
from pipeline.store.address import S3Address, parse_address


@pytest.fixture
def bucket(minio_endpoint: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh repository's address; s3fs is told of the server as it can be told."""
    address = minio_endpoint.address()
    parsed = parse_address(address)
    assert isinstance(parsed, S3Address)
    monkeypatch.setenv("FAILBACK_REPOSITORY", address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", parsed.endpoint)
    return f"s3://{parsed.bucket}"


def test_out_and_back(bucket: str, disk: Path, tmp_path: Path, process: Run) -> None:
    assert process("repository", "init").code == 0
    assert process("doctor").code == 0
    write_json(f"{bucket}/extra/changes.json", {"since": 1, "extents": [[0, CHUNK]]})
    assert process("export", "web", "--disk", disk).code == 0
    done = process("export", "web", "--disk", disk, "--changes", f"{bucket}/extra/changes.json", "--json")
    assert done.result["disks"][0]["mode"] == "changed blocks"
    assert process("list", "web", "--report", f"{bucket}/extra/report.json").code == 0
    assert len(read_document(f"{bucket}/extra/report.json")["points"]) == 2
    assert process("import", "web", "--out", tmp_path / "out").code == 0
    assert filecmp.cmp(disk, tmp_path / "out" / "web-disk0.raw", shallow=False)
    log = (tmp_path / "state" / "failback.log").read_text()
    assert urlsplit(bucket).scheme == "s3"
    assert "put " in log


def test_the_recovery_sheet_says_where_the_bucket_is(
    bucket: str, process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = os.environ["FAILBACK_REPOSITORY"]
    monkeypatch.setenv("FAILBACK_KEY_FILE", os.environ["FAILBACK_STATE_DIR"] + "/../sheet.key")
    assert process("repository", "init").code == 0
    assert address in process("key", "export").out
    assert process("key", "export", "--json").result["address"] == address


def test_buckets_of_one_name_at_two_servers_are_two_places(
    minio: Server,
    versitygw: Server,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: Path,
    tmp_path: Path,
    failback: Run,
) -> None:
    """As at two sites that back each other up: neither is taken for the other, put in its place by somebody."""
    addresses = [login(server, monkeypatch).address("same") for server in (minio, versitygw)]
    for address in addresses:
        assert failback("repository", "init", "-r", address).code == 0
    assert failback("export", "web", "--disk", disk, "-r", addresses[0]).code == 0
    assert failback("copy", "web", "--to", addresses[1], "-r", addresses[0]).code == 0
    again = addresses[0].replace("&region=us-east-1", "") + "/"
    assert failback("list", "-r", again).code == 0
    assert len(list((tmp_path / "state" / "repositories").iterdir())) == 2


def test_a_document_that_is_not_there_is_told(bucket: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_document(f"{bucket}/none.json")
    with pytest.raises(UsageError, match="cannot be"):
        read_document("gopher://nowhere/x.json")


def test_wrong_credentials_end_with_code_4(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, process: Run
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-wrong-wrong")
    done = process("list")
    assert done.code == 4
    assert "wrong-wrong" not in done.err + (tmp_path / "state" / "failback.log").read_text()
    doctor = process("doctor", "--json")
    assert doctor.code == 11
    assert json.loads(doctor.out.splitlines()[-1])["ok"] is False
