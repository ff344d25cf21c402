"""A MinIO with users who have exactly the rights of a policy, and commands that run as one of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cli.conftest import Done
from minio import MinioAdmin
from minio.credentials import StaticProvider
from servers import Server, make_bucket, s3_client
from transfer.support import CHUNK, make_disk, noise
from typer.testing import CliRunner

from pipeline.cli.main import app


@dataclass
class Site:
    """A bucket with a repository, looked at from outside as the server's owner, and used by users."""

    server: Server
    bucket: str
    prefix: str
    admin: MinioAdmin
    monkeypatch: pytest.MonkeyPatch

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}?endpoint={self.server.endpoint}&region={self.server.region}"

    @property
    def s3(self) -> Any:
        return s3_client(self.server)

    def become(self, user: str = "") -> None:
        """Everything from now on runs as this user; nobody: the server's owner."""
        access, secret = (user, SECRET) if user else (self.server.access_key, self.server.secret_key)
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    def user(self, policy: dict[str, Any]) -> str:
        """A new user with this policy and no other right."""
        name = f"user-{secrets.token_hex(6)}"
        self.admin.user_add(name, SECRET)
        self.admin.policy_add(name, policy=policy)
        self.admin.attach_policy([name], user=name)
        return name

    def change(self, user: str, policy: dict[str, Any]) -> None:
        """Other rights for a user."""
        self.admin.policy_add(user, policy=policy)

    def run(self, *arguments: object) -> Done:
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="failback")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    def good(self, *arguments: object) -> Done:
        done = self.run(*arguments)
        assert done.code == 0, done.err
        return done

    def policy(self, role: str, *more: str) -> dict[str, Any]:
        """As the command prints it."""
        found = json.loads(self.good("repository", "policy", "--role", role, "--for", "minio", *more).out)
        assert isinstance(found, dict)
        return found

    def keys(self, folder: str) -> list[str]:
        """Keys in a folder of the repository, without its prefix."""
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/{folder}").get("Contents", [])
        return [entry["Key"].removeprefix(f"{self.prefix}/") for entry in found]


SECRET = "a-users-secret"
Make = Callable[..., Site]


@pytest.fixture
def make_site(minio: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes sites: a fresh bucket each, and an address in the environment."""

    def make(*, lock: bool = False) -> Site:
        bucket = f"site-{secrets.token_hex(6)}"
        make_bucket(minio, bucket, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        admin = MinioAdmin(
            endpoint=urlsplit(minio.endpoint).netloc,
            credentials=StaticProvider(minio.access_key, minio.secret_key),
            secure=False,
        )
        site = Site(minio, bucket, "site/repository", admin, monkeypatch)
        monkeypatch.setenv("FAILBACK_REPOSITORY", site.address)
        monkeypatch.setenv("FAILBACK_KEY_FILE", str(tmp_path / "key"))
        monkeypatch.setenv("FAILBACK_RETRY_DEADLINE", "5")
        monkeypatch.setenv("COLUMNS", "300")
        site.become()
        return site

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """20 chunks, every second one with data."""
    return make_disk(tmp_path / "disk.img", 20 * CHUNK, {p * CHUNK: noise(CHUNK, p) for p in range(0, 20, 2)})
