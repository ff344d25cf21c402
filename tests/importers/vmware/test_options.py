"""The mapping's options for VMware: what they may say, and what a slip is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from importers.vmware.options import connection_differs, parse_options, split_address
from importers.vmware.proxy import Proxy
from importers.vmware.secret import SecretSource
from pipeline.errors import UsageError

PIN = "6a" * 32


@pytest.mark.parametrize("text", [PIN, PIN.upper(), f"SHA256:{PIN}", "sha-256=" + ":".join(["6A"] * 32)])
def test_a_fingerprint_may_be_written_as_any_tool_shows_it(text: str) -> None:
    assert parse_options({"fingerprint": text}).fingerprint == PIN


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"fingerprint": "6a" * 20}, "SHA-1 fingerprint, which can be forged"),
        ({"fingerprint": "6a"}, "64 hexadecimal digits"),
        ({"fingerprint": PIN, "ca": "x"}, "not both"),
        ({"address": "https://vc/sdk"}, "without a scheme"),
        ({"address": "root@vc"}, "without a scheme, path or user"),
        ({"address": "vc:0"}, "no HOST or HOST:PORT"),
        ({"proxy": "http://me:secret@proxy:1"}, "password is not supported"),
        ({"format": "sparse"}, "'thin', 'thick' or 'eager'"),
        ({"version": "13"}, "version"),
        ({"extra": {"failback.marker": "x"}}, "failback's own"),
        ({"worker": {"address": "192.0.2.7"}}, "prefix length"),
        ({"worker": {"address": "192.0.2.7/24"}}, "needs `dns`"),
        ({"worker": {"memory": "100MiB"}}, "at least 512MiB"),
        ({"worker": {"memory": 2048}}, "no unit"),
        ({"password": {"file": "a", "command": "b"}}, "one of"),
        ({"password": {}}, "one of"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=next(iter(values))) as caught:
        parse_options(values)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ({"adress": "vc"}, "address"),
        ({"worker": {"netwrk": "lan"}}, "network"),
        ({"password": {"env": "X"}}, "variable, file, command"),
    ],
)
def test_a_slip_in_a_key_is_told_what_is_known(values: dict[str, Any], known: str) -> None:
    with pytest.raises(UsageError, match="is unknown") as caught:
        parse_options(values)
    assert known in caught.value.remedy


def test_a_password_in_the_mapping_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="say where it is found") as caught:
        parse_options({"password": "hunter2-hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caught.value.remedy


def test_a_secret_comes_from_a_variable_a_file_or_a_command(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p a\tss\r\nsecond line\n")
    assert SecretSource(file=file).read("it") == "p a\tss"
    assert SecretSource(variable="PASS").read("it", {"PASS": "from here"}) == "from here"
    assert SecretSource(command=f"cat {file}").read("it") == "p a\tss"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"variable": "NOT_SET_ANYWHERE"}, "is not in the variable NOT_SET_ANYWHERE"),
        ({"file": "/nowhere/at/all"}, "cannot read the password of me from /nowhere/at/all"),
        ({"command": "/nowhere/at/all"}, "does not run"),
        ({"command": "sh -c 'echo locked >&2; exit 3'"}, "ended with 3: locked"),
        ({"command": "true"}, "is not in the command 'true'"),
    ],
)
def test_a_secret_that_is_not_there_is_told_by_its_place(source: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SecretSource(**source).read("the password of me", {})
    assert said in str(caught.value)
    assert caught.value.remedy


def test_addresses_have_ports_and_may_be_ipv6() -> None:
    assert split_address("vc.example.org") == ("vc.example.org", 443)
    assert split_address("vc:8443") == ("vc", 8443)
    assert split_address("2001:db8::1") == ("2001:db8::1", 443)
    assert split_address("[2001:db8::1]:902") == ("2001:db8::1", 902)


def test_the_proxy_is_not_taken_for_hosts_that_need_none() -> None:
    proxy = Proxy.of(parse_options({"proxy": "http://proxy:3128", "no_proxy": ["esx1", ".lan", "10.0.0.0/8"]}))
    assert (proxy.host, proxy.port) == ("proxy", 3128)
    assert proxy.serves("vc.example.org")
    assert proxy.serves("192.0.2.1")
    assert not any(map(proxy.serves, ("esx1", "ESX1", "esx2.lan", "10.1.2.3")))
    assert not Proxy.of(parse_options({})).serves("vc.example.org")


def test_a_machine_cannot_have_a_connection_of_its_own() -> None:
    common = {"address": "vc", "cluster": "a"}
    assert connection_differs(common, common | {"cluster": "b"}) == []
    assert connection_differs(common, common | {"address": "other"}) == ["address"]
