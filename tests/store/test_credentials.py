"""Credentials: the environment first, else botocore's chain, refreshed before they expire and never shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied, StoreUnavailable
from pipeline.store.address import S3Address
from pipeline.store.credentials import find_credentials
from pipeline.store.s3 import S3Store
from store.scripted_s3 import ScriptedS3, scripted_s3


@pytest.fixture
def server() -> Iterator[ScriptedS3]:
    with scripted_s3() as running:
        yield running


@pytest.fixture
def aws(tmp_path: Path) -> Path:
    """The directory ~/.aws of the isolated home."""
    path = tmp_path / "home" / ".aws"
    path.mkdir(parents=True)
    return path


def test_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HIDDEN")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "HIDDEN-TOKEN")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    found = find_credentials()
    assert (found.access_key, found.secret_key, found.token) == ("AKID", "HIDDEN", "HIDDEN-TOKEN")
    assert found.region == "eu-central-1"
    assert found.provider is None
    assert "HIDDEN" not in repr(found)


def test_a_profile_wins_over_the_environment(aws: Path, server: ScriptedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HIDDEN")
    (aws / "credentials").write_text("[home]\naws_access_key_id = PROFILE\naws_secret_access_key = HIDDEN\n")
    (aws / "config").write_text("[profile home]\nregion = eu-west-3\n")
    S3Store(S3Address("bucket", "", server.endpoint, profile="home")).put("a", b"x")
    authorization = server.requests[0].headers["authorization"]
    assert "Credential=PROFILE/" in authorization
    assert "/eu-west-3/s3/" in authorization


def test_an_unknown_profile_is_named(aws: Path) -> None:
    with pytest.raises(AccessDenied, match="no AWS profile 'nobody'"):
        find_credentials("nobody")


def test_no_credentials_at_all_is_an_error_with_a_remedy() -> None:
    with pytest.raises(AccessDenied, match=r"no credentials for S3\n.*AWS_ACCESS_KEY_ID"):
        find_credentials()


def process_profile(aws: Path, *, fails_after: int, expires: datetime | None = None) -> None:
    """A profile whose keys KEY1, KEY2, ... come from a program, as with SSO helpers; it fails after some calls."""
    answer = {"Version": 1, "AccessKeyId": "KEY$n", "SecretAccessKey": "HIDDEN", "SessionToken": "T$n"}
    if expires is not None:
        answer["Expiration"] = expires.isoformat()
    text = json.dumps(answer).replace('"', '\\"')
    program = aws / "helper"
    program.write_text(
        f"#!/bin/sh\necho x >> {aws}/calls\nn=$(grep -c x {aws}/calls)\n"
        f'[ $n -le {fails_after} ] || exit 1\necho "{text}"\n'
    )
    program.chmod(0o755)
    (aws / "config").write_text(f"[profile helper]\ncredential_process = {program}\n")


def test_keys_that_expire_are_fetched_again(aws: Path, server: ScriptedS3) -> None:
    process_profile(aws, fails_after=99, expires=datetime.now(UTC) + timedelta(seconds=30))
    store = S3Store(S3Address("bucket", "", server.endpoint, profile="helper"))
    store.put("a", b"x")
    time.sleep(0.2)  # obstore asks for new keys at most every 100 ms
    store.put("b", b"x")
    used = [request.headers["authorization"].split("Credential=")[1].split("/")[0] for request in server.requests]
    tokens = [request.headers["x-amz-security-token"] for request in server.requests]
    assert len(set(used)) == 2, "keys that are about to expire are not used twice"
    assert [key.removeprefix("KEY") for key in used] == [token.removeprefix("T") for token in tokens]


def test_a_helper_that_fails_at_the_start_is_a_matter_for_the_person(aws: Path, server: ScriptedS3) -> None:
    process_profile(aws, fails_after=0)
    with pytest.raises(AccessDenied, match="no credentials for S3") as caught:
        S3Store(S3Address("bucket", "", server.endpoint, profile="helper"))
    assert "sign in again" in caught.value.remedy


def test_a_helper_that_fails_later_may_recover(aws: Path, server: ScriptedS3) -> None:
    process_profile(aws, fails_after=2, expires=datetime.now(UTC) + timedelta(seconds=1))
    store = S3Store(S3Address("bucket", "", server.endpoint, profile="helper"))
    with pytest.raises(StoreUnavailable, match="could not be refreshed") as caught:
        store.put("a", b"x")
    assert "HIDDEN" not in str(caught.value)
    assert server.requests == []
