"""Each right of each role, taken away alone: a command misses it, and says which it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Done

from guard.conftest import Make, Site
from guard.test_policy import rights_of
from pipeline.catalogue import latest
from pipeline.collect.record import hold, verifications
from pipeline.errors import FailbackError
from pipeline.guard.rights import RIGHTS, WHOLE_BUCKET, Role
from pipeline.home.site import Ground
from pipeline.keys.locks import KeyFile
from pipeline.mend.damage import Damage, record_damage
from pipeline.plans.stored import read as read_plan
from pipeline.repository import Repository
from pipeline.runs.begin import begin, find_run
from pipeline.runs.effects.job import Job
from pipeline.runs.effects.reading import make_set
from pipeline.runs.ownership import Epoch, advance
from pipeline.store.open import open_store
from pipeline.store.s3_errors import ROLES
from pipeline.transfer.session import Session

Command = tuple[object, ...] | Callable[[], None]
DISK, OUT, PLAN = object(), object(), object()
"""Stand for the disk, a fresh folder, and a plan that is not stored yet."""

EXPORT = ("export", "web", "--disk", DISK)
VERIFY: Command = ("verify", "web")
READ: Command = ("verify", "web", "--read")
COLLECT: Command = ("gc", "--apply", "--grace", "0s")
LISTED: Command = ("list", "web")
OPEN: dict[tuple[str, str], Command] = {
    ("s3:GetObject", "repository.json"): ("list",),
    ("s3:GetObject", "keys/*"): ("list",),
    ("s3:ListBucket", "features/*"): ("list",),
    ("s3:ListBucket", "keys/*"): ("list",),
}


def _opened() -> Repository:
    """As whoever the environment's credentials belong to."""
    lock = KeyFile(Path(os.environ["FAILBACK_KEY_FILE"]))
    return Repository.open(open_store(os.environ["FAILBACK_REPOSITORY"]), lambda: [lock])


def _claims() -> None:
    repository = _opened()
    advance(repository, Epoch("mail", 0, "takeover"), "moving", run="shop-20261130-000000-000000", proof={})


def _forms_a_set() -> None:
    """The one that another conductor of the run formed before."""
    repository = _opened()
    state, stored = find_run(repository, "shop")
    ground = Ground(repository, Path())
    nobody: Any = None
    make_set(Job(state.run, stored.plan, state, ground, nobody, "set", "shop", lambda: None, nobody))


def _sees_when_it_was_verified() -> None:
    verifications(_opened(), "web")


SHARED: dict[tuple[str, str], Command] = {
    ("s3:ListBucket", "manifests/*"): LISTED,
    ("s3:GetObject", "manifests/*"): LISTED,
    ("s3:ListBucket", "tombstones/*"): LISTED,
    ("s3:GetObject", "tombstones/*"): LISTED,
    ("s3:ListBucket", "pages/*"): VERIFY,
    ("s3:GetObject", "pages/*"): ("import", "web", "--out", OUT),
    ("s3:ListBucket", "packs/*"): VERIFY,
    ("s3:GetObject", "packs/*"): ("import", "web", "--out", OUT),
    ("s3:ListBucket", "relocations/*"): ("import", "web", "--out", OUT),
    ("s3:GetObject", "relocations/*"): ("import", "web", "--out", OUT),
    ("s3:GetObject", "verified/*/*"): ("verify", "web@2", "--read"),
    ("s3:PutObject", "verified/*/*"): ("verify", "web@3", "--read"),
    ("s3:PutObject", "holds/*/*"): ("hold", "web@2", "--reason", "x"),
    ("s3:ListBucket", "plans/*"): ("plan", "list"),
    ("s3:GetObject", "plans/*"): ("plan", "show", "shop@1"),
}
"""What importers and conductors do."""

COMMANDS: dict[Role, dict[tuple[str, str], Command]] = {
    "exporter": {
        **OPEN,
        ("s3:ListBucket", "manifests/"): ("list",),
        ("s3:ListBucket", "manifests/web/*"): LISTED,
        ("s3:GetObject", "manifests/web/*"): LISTED,
        ("s3:ListBucket", "tombstones/web/*"): LISTED,
        ("s3:GetObject", "tombstones/web/*"): LISTED,
        ("s3:ListBucket", "sessions/web/*"): EXPORT,
        ("s3:GetObject", "sessions/web/*"): EXPORT,
        ("s3:PutObject", "sessions/web/*"): EXPORT,
        ("s3:PutObject", "manifests/web/*"): EXPORT,
        ("s3:PutObject", "packs/*"): (*EXPORT, "--full"),
        ("s3:PutObject", "pages/*"): EXPORT,
        ("s3:ListBucket", "pages/*"): VERIFY,
        ("s3:GetObject", "pages/*"): VERIFY,
        ("s3:ListBucket", "packs/*"): VERIFY,
        ("s3:GetObject", "packs/*"): READ,
        ("s3:ListBucket", "relocations/*"): READ,
        ("s3:GetObject", "relocations/*"): READ,
        ("s3:ListBucket", "scrub/damage/*"): EXPORT,
    },
    "importer": {
        **OPEN,
        **SHARED,
    },
    # Collections delete what others need to find doomed: in the order in which one deletes.
    "janitor": {
        **OPEN,
        ("s3:ListBucket", "manifests/*"): LISTED,
        ("s3:GetObject", "manifests/*"): LISTED,
        ("s3:ListBucket", "tombstones/*"): LISTED,
        ("s3:GetObject", "tombstones/*"): LISTED,
        ("s3:PutObject", "tombstones/*"): ("forget", "web@2", "--reason", "x"),
        ("s3:ListBucket", "holds/*"): ("gc",),
        ("s3:GetObject", "holds/*"): ("gc",),
        ("s3:PutObject", "holds/*"): ("hold", "web@2", "--reason", "x"),
        ("s3:DeleteObject", "holds/*"): ("release", "web", "tests"),
        ("s3:ListBucket", "verified/*"): ("forget", "web", "--keep-last", "9"),
        ("s3:ListBucket", "sessions/*"): ("gc",),
        ("s3:ListBucket", "pages/*"): ("gc",),
        ("s3:GetObject", "pages/*"): ("gc",),
        ("s3:ListBucket", "packs/*"): ("gc",),
        ("s3:ListBucket", "relocations/*"): ("gc",),
        ("s3:GetObject", "relocations/*"): ("gc",),
        ("s3:PutObject", "gc/*"): ("gc",),
        ("s3:GetObject", "gc/*"): ("gc",),
        ("s3:ListBucket", "scrub/*"): ("scrub", "--listing"),
        ("s3:GetObject", "scrub/*"): ("scrub", "--bytes", "1"),
        ("s3:GetObject", "verified/*"): ("scrub", "--bytes", "1"),
        ("s3:ListBucket", "plans/*"): ("scrub", "--bytes", "1"),
        ("s3:GetObject", "plans/*"): ("scrub", "--bytes", "1"),
        ("s3:PutObject", "scrub/*"): ("scrub", "--listing"),
        ("s3:DeleteObject", "scrub/*"): ("scrub", "--listing"),
        ("s3:GetObject", "sessions/*"): ("gc",),
        ("s3:PutObject", "manifests/*"): COLLECT,
        ("s3:ListBucket", "gc/*"): COLLECT,
        ("s3:DeleteObject", "gc/*"): COLLECT,
        ("s3:DeleteObject", "packs/*"): COLLECT,
        ("s3:DeleteObject", "pages/*"): COLLECT,
        ("s3:DeleteObject", "manifests/*"): COLLECT,
        ("s3:DeleteObject", "verified/*"): COLLECT,
        ("s3:DeleteObject", "sessions/*"): COLLECT,
    },
    "admin": {
        ("s3:ListBucket", "*"): ("list",),
        ("s3:GetObject", "*"): ("list",),
        ("s3:PutObject", "*"): EXPORT,
        ("s3:DeleteObject", "*"): ("release", "web", "tests"),
        ("s3:GetBucketVersioning", ""): ("repository", "probe"),
        ("s3:GetBucketObjectLockConfiguration", ""): ("repository", "probe"),
        ("s3:GetLifecycleConfiguration", ""): ("repository", "info"),
    },
    # Verified and held is what is newest: before exports make newer ones.
    "conductor": {
        **OPEN,
        **SHARED,
        ("s3:PutObject", "plans/*"): ("plan", "put", PLAN),
        ("s3:ListBucket", "verified/*/*"): _sees_when_it_was_verified,
        ("s3:ListBucket", "runs/*"): ("run", "list"),
        ("s3:GetObject", "runs/*"): ("run", "show", "shop"),
        ("s3:PutObject", "runs/*"): ("run", "hold", "shop"),
        ("s3:ListBucket", "leases/*/*"): ("run", "runbook", "shop"),
        ("s3:GetObject", "leases/*/*"): ("run", "runbook", "shop"),
        ("s3:PutObject", "leases/*/*"): _claims,
        ("s3:PutObject", "sets/*"): _forms_a_set,
        ("s3:GetObject", "sets/*"): _forms_a_set,
        ("s3:GetObject", "holds/*/run-*"): ("release", "web", "run-shop"),
        ("s3:DeleteObject", "holds/*/run-*"): ("release", "web", "run-shop"),
        ("s3:ListBucket", "sessions/*/*"): EXPORT,
        ("s3:GetObject", "sessions/*/*"): EXPORT,
        ("s3:PutObject", "sessions/*/*"): EXPORT,
        ("s3:PutObject", "manifests/*/*"): EXPORT,
        ("s3:PutObject", "packs/*"): (*EXPORT, "--full"),
        ("s3:PutObject", "pages/*"): EXPORT,
        ("s3:ListBucket", "scrub/damage/*"): EXPORT,
    },
    "approver": {
        **dict.fromkeys(OPEN, ("run", "show", "shop")),
        ("s3:ListBucket", "runs/*"): ("run", "list"),
        ("s3:GetObject", "runs/*"): ("run", "list"),
        ("s3:GetObject", "plans/*"): ("run", "show", "shop"),
        ("s3:PutObject", "runs/*/journal/*"): ("run", "hold", "shop"),
    },
}
"""By action and place: what cannot be done without that right."""

EXTRAS = {
    ("s3:ListBucket", "scrub/damage/*"),
    ("s3:GetObject", "verified/*/*"),
    ("s3:PutObject", "verified/*/*"),
    ("s3:PutObject", "scrub/*"),
    ("s3:DeleteObject", "scrub/*"),
    *((action, "") for action in WHOLE_BUCKET),
}
"""What a command does besides, and tells that it could not."""


@dataclass
class Stage:
    """A site in which everything has happened, so that every right is of use."""

    site: Site
    disk: Path
    root: Path

    def run(self, command: Command, number: int) -> Done:
        if callable(command):
            try:
                command()
            except FailbackError as error:
                return Done(error.exit_code, "", f"{error.message}\n{error.remedy}")
            return Done(0, "", "")
        stands = {id(DISK): self.disk, id(OUT): self.root / f"out-{number}", id(PLAN): _plan(self.root, number)}
        return self.site.run(*(stands.get(id(word), word) for word in command))


@pytest.fixture
def stage(make_site: Make, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in ("collector.LEAST_GRACE", "collector.RECALL"):
        monkeypatch.setattr(f"pipeline.collect.{name}", timedelta())
    monkeypatch.setattr("pipeline.collect.collector.SKEW", 0.0)
    monkeypatch.setattr("pipeline.collect.record.PLANS_KEPT", 1)
    monkeypatch.setattr("pipeline.verify.listing._HEADS", 0)
    monkeypatch.setenv("FAILBACK_RETRY_DEADLINE", "0")
    site = make_site()
    site.good("repository", "init")
    site.good(*("export", "web", "--disk", disk))
    site.good(*("export", "web", "--disk", disk, "--full"))
    site.good("verify", "web@2", "--read")
    site.good(*("export", "web", "--disk", disk, "--full"))
    site.good("hold", "web@3", "--reason", "needed", "--as", "tests")
    site.good("plan", "put", _plan(tmp_path, 63))
    site.good("gc", "--apply")
    site.good("gc", "--apply")
    site.good("forget", "web@1", "--reason", "old")
    _damage(site, disk)
    repository = Repository.open(open_store(site.address), lambda: [KeyFile(tmp_path / "key")])
    # Of an object that nothing needs: a scrub clears it.
    record_damage(repository, Damage(f"packs/ab/{'ab' * 32}", "missing", "long ago"))
    # A run that was killed when it had formed its set, and holds a point.
    run = begin(repository, read_plan(repository, "shop")).run
    advance(repository, Epoch("web", 0, "takeover"), "moving", run=run, proof={})
    _forms_a_set()
    newest = latest(repository, "web")
    assert newest is not None
    hold(repository, newest, holder="run-shop", reason="of a run")
    Session.begin(repository, "web", 4, parent=None, bases=[], disks=[], tool="dies")[0].abandon()
    return Stage(site, disk, tmp_path)


def _plan(root: Path, number: int) -> Path:
    """The file of a plan; another number makes another one."""
    path = root / "shop.json"
    group = {"name": "shop", "waves": [["web"]]}
    limits = {"parallel": number % 64 + 1}
    source = {"kind": "command"}
    plan = {"name": "shop", "target": "files", "source": source, "machines": {"web": {}}, "groups": [group]}
    path.write_text(json.dumps(plan | {"limits": limits}))
    return path


def _damage(site: Site, disk: Path) -> None:
    """A pack of web@3 is damaged, scrubbed and mended by relocation."""
    newest = max(
        site.s3.list_objects_v2(Bucket=site.bucket, Prefix=f"{site.prefix}/packs/")["Contents"],
        key=lambda entry: entry["LastModified"],
    )["Key"]
    whole = site.s3.get_object(Bucket=site.bucket, Key=newest)["Body"].read()
    site.s3.put_object(Bucket=site.bucket, Key=newest, Body=whole[: len(whole) // 2])
    assert site.run("scrub", "--share", "1/1").code == 5
    site.good("repair", "--from-disk", f"web@3:0={disk}")


@pytest.mark.parametrize("role", sorted(COMMANDS))
def test_each_right_that_is_taken_away_is_missed_by_name(stage: Stage, role: Role) -> None:
    site = stage.site
    document = site.policy(role, *(("--machine", "web") if role == "exporter" else ()))
    user = site.user(document)
    all_of = {(action, place.removeprefix(f"{site.prefix}/")): less for action, place, less in rights_of(document)}
    assert all_of.keys() == COMMANDS[role].keys()
    assert len(all_of) == len([right for right in RIGHTS[role] if not right.versions])
    site.become(user)
    bad = []
    for number, (right, command) in enumerate(COMMANDS[role].items()):
        site.change(user, all_of[right])
        done = stage.run(command, number)
        if not says(done, *right):
            bad.append((right, command, done.code, done.err[-600:], done.out[-300:]))
    assert not bad, "\n".join(map(str, bad))


def says(done: Done, action: str, place: str) -> bool:
    """A refusal ends the command. What is an extra of a command is told, and the command goes on."""
    named = f"{action} on {place.partition('*')[0] or ('the bucket' if action in WHOLE_BUCKET else '')}"
    if (action, place) in EXTRAS:
        return named in done.err + done.out
    return done.code == 4 and named in done.err and ROLES in done.err
