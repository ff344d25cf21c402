"""On a real store an agent and its controller need the rights that are printed for them, and no others."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from guard.conftest import SECRET, Make
from guard.conftest import Site as Bucket
from nbd.tools import needs_root
from servers import s3_client
from transfer.support import CHUNK, MIB, make_disk, noise, poke, same

from agent.conftest import Site as AgentSite
from pipeline.agent.code import StoreLogin
from pipeline.agent.controller import Agents
from pipeline.agent.orders import Check
from pipeline.agent.remote import order_id, point_disk
from pipeline.errors import VerifyError
from pipeline.keys.locks import KeyFile
from pipeline.repository import Repository
from pipeline.store.open import open_store

pytestmark = needs_root
SIZE = 16 * MIB


def as_user(bucket: Bucket, user: str) -> Any:
    """A client of the store with this user's rights."""
    return s3_client(replace(bucket.server, access_key=user, secret_key=SECRET))


def test_an_agent_writes_and_checks_disks_with_the_rights_of_its_role(
    make_site: Make,
    tmp_path: Path,
    stack: ExitStack,
) -> None:
    bucket = make_site()
    user = bucket.user(bucket.policy("agent"))
    site = AgentSite(tmp_path, bucket.address, stack, StoreLogin(user, SECRET))
    source = make_disk(tmp_path / "source", SIZE, {p * CHUNK: noise(CHUNK, p) for p in range(0, 100, 2)})
    site.bench.export(source)
    target, name = site.disk(SIZE, "rights")

    # From here on the controller has the rights of its role, too.
    bucket.become(bucket.user(bucket.policy("controller")))
    repository = Repository.open(open_store(bucket.address), lambda: [KeyFile(tmp_path / "bench-root" / "key")])
    site.agents = Agents(repository, tmp_path / "controller", site.controller)
    agent = site.pair()
    bucket.become()
    bucket.change(user, bucket.policy("agent", "--agent", agent))
    process = site.start(agent)
    site.agents.await_answer(agent, 60)
    remote = site.agents.agent(agent)
    assert site.receive(remote, name, held=site.held(None)).report.result["mode"] == "full"
    poke(source, 7 * CHUNK, noise(CHUNK, "new"))
    site.bench.export(source)
    assert site.receive(remote, name, held=site.held(1)).report.result["written"] == CHUNK
    assert same(source, target)
    point = point_disk(site.bench.point(), 0)
    remote.check(order_id("check", 1), Check(disk=name, point=point))
    poke(target, 7 * CHUNK, b"x")
    with pytest.raises(VerifyError, match=f"{7 * CHUNK}\\+{CHUNK}"):
        remote.check(order_id("check", 2), Check(disk=name, point=point))

    thief = as_user(bucket, user)
    prefix = bucket.prefix

    def refused(call: Any, **arguments: Any) -> None:
        with pytest.raises(ClientError) as error:
            call(Bucket=bucket.bucket, **arguments)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

    own = f"{prefix}/mailbox/{agent}"
    for key in (
        f"{own}/orders/0000000099", f"{own}/bell", f"{prefix}/mailbox/{agent}x/alive", f"{prefix}/mailbox/other/answer",
        f"{prefix}/manifests/vm/0000000009", f"{prefix}/packs/aa/{'a' * 64}", f"{prefix}/keys/new",
        f"{prefix}/tombstones/vm/0000000001", f"{prefix}/holds/vm/x", f"{prefix}/repository.json",
    ):  # fmt: skip
        refused(thief.put_object, Key=key, Body=b"x")
    for key in (f"{own}/orders/0000000001", f"{own}/alive", f"{prefix}/repository.json"):
        refused(thief.delete_object, Key=key)
    for folder in ("keys", "sessions", "mailbox/other"):
        refused(thief.list_objects_v2, Prefix=f"{prefix}/{folder}/")
    for info in bucket.keys("keys/"):
        refused(thief.get_object, Key=f"{prefix}/{info}")

    site.agents.remove(agent)
    process.process.wait(timeout=60)
    assert not bucket.keys("mailbox/")
