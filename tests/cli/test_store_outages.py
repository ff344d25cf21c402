"""A real S3 server that is down, slow, refuses, cuts, forgets to answer, or lives an hour off: what a user sees."""

from __future__ import annotations

import filecmp
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from servers import Server, run_minio
from simulators.s3_proxy import Line, first_time, proxied
from store.scripted_s3 import Answer, Request

from cli.conftest import Done, Run

DOWN = Answer(cut=True)


@pytest.fixture
def line(minio_endpoint: Server, monkeypatch: pytest.MonkeyPatch, failback: Run) -> Iterator[Line]:
    """An empty repository on MinIO, reached through a line that is good so far."""
    with proxied(minio_endpoint) as (seen, line):
        monkeypatch.setenv("FAILBACK_REPOSITORY", seen.address())
        monkeypatch.setenv("COLUMNS", "200")
        assert failback("repository", "init").code == 0
        yield line


@pytest.fixture
def exported(line: Line, disk: Path, change: Callable[[Path, int], None], tmp_path: Path, failback: Run) -> Path:
    """The disk as it is in web@1; since then it has changed."""
    assert failback("export", "web", "--disk", disk).code == 0
    kept = tmp_path / "kept.img"
    kept.write_bytes(disk.read_bytes())
    change(disk, 6)
    return kept


def said(done: Done, code: int = 4) -> str:
    assert done.code == code, (done.out, done.err)
    *_, what, remedy = done.err.splitlines()
    assert what.startswith("failback: ")
    assert remedy.startswith("  ")
    return what + remedy


def restorable(failback: Run, kept: Path, out: Path, point: str = "web@1") -> None:
    assert failback("import", point, "--out", out).code == 0
    assert filecmp.cmp(kept, out / "web-disk0.raw", shallow=False)


REFUSALS = {
    "down": (DOWN, "the connection was cut"),
    "403": (Answer(403, "AccessDenied"), "the credentials lack the right to"),
    "404 of a bucket": (Answer(404, "NoSuchBucket"), "does not exist"),
    "404 of a proxy": (Answer(404, body=b"<html>not here</html>"), "not one of S3"),
    "500": (Answer(500, "InternalError"), "InternalError"),
    "503": (Answer(503, "SlowDown"), "slow down"),
    "a wrong clock": (Answer(403, "RequestTimeTooSkewed", "it's later"), "clock differs"),
    "full": (Answer(507, "XMinioStorageFull"), "free space"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("of", ["packs", "pages", "manifests", "sessions", "repository.json"])
def test_4_an_export_that_cannot_store_commits_nothing_and_goes_on(
    line: Line, exported: Path, disk: Path, tmp_path: Path, refusal: str, of: str,
    monkeypatch: pytest.MonkeyPatch, failback: Run,
) -> None:  # fmt: skip
    monkeypatch.setenv("FAILBACK_RETRY_DEADLINE", "0.3")
    answer, says = REFUSALS[refusal]
    verb = "GET" if of == "repository.json" else "PUT"
    line.script = lambda request: answer if request.method == verb and f"/{of}" in request.path else None
    error = said(failback("export", "web", "--disk", disk))
    assert says in error
    assert "bucket failback does not exist" in error or f"{of}" in error
    assert "&#" not in error
    line.script = lambda _: None
    points = failback("list", "web", "--json").result["points"]
    assert [p["point"] for p in points] == ["web@1"]
    restorable(failback, exported, tmp_path / "out")
    assert failback("export", "web", "--disk", disk).code == 0
    assert failback("verify", "web@2", "--read").code == 0
    restorable(failback, disk, tmp_path / "out", "web@2")


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("of", ["packs", "pages", "manifests", "repository.json"])
def test_4_an_import_that_cannot_read_is_not_whole_and_goes_on(
    line: Line, exported: Path, tmp_path: Path, refusal: str, of: str,
    monkeypatch: pytest.MonkeyPatch, failback: Run,
) -> None:  # fmt: skip
    monkeypatch.setenv("FAILBACK_RETRY_DEADLINE", "0.3")
    answer, says = REFUSALS[refusal]
    line.script = lambda request: answer if request.method != "PUT" and f"/{of}" in request.path else None
    assert says in said(failback("import", "web", "--out", tmp_path / "out"))
    stage = tmp_path / "out" / ".failback" / "web-disk0.raw" / "stage.json"
    assert not stage.exists() or json.loads(stage.read_bytes())["state"] != "staged"
    line.script = lambda _: None
    restorable(failback, exported, tmp_path / "out")


@pytest.mark.parametrize("refusal", [name for name in REFUSALS if name != "404 of a bucket"])
def test_4_a_listing_that_fails_is_no_empty_listing(
    line: Line, exported: Path, tmp_path: Path, refusal: str, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    monkeypatch.setenv("FAILBACK_RETRY_DEADLINE", "0.3")
    line.script = lambda request: REFUSALS[refusal][0] if "list-type" in request.query else None
    for command in (
        ("list",),
        ("list", "web"),
        ("show", "web"),
        ("import", "web", "--out", tmp_path / "out"),
        ("verify", "web"),
        ("forget", "web@1", "--reason", "x", "--force"),
    ):
        said(failback(*command))


def test_every_answer_is_lost_once_and_nothing_is_done_twice(
    line: Line, exported: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    """Each write and each deletion is carried out, its answer is lost, and it is sent again."""

    def lose() -> None:
        changing = lambda r: r.method in ("PUT", "DELETE") or "delete" in r.query  # noqa: E731
        line.script = first_time(what=changing, answer=Answer(cut=True, after=True))

    lose()
    assert failback("export", "web", "--disk", disk).code == 0
    lose()
    assert failback("export", "web", "--disk", disk, "--full").code == 0
    assert [p["point"] for p in failback("list", "web", "--json").result["points"]] == ["web@1", "web@2", "web@3"]
    lose()
    assert failback("forget", "web@2", "--reason", "superseded").code == 0
    assert failback("import", "web@2", "--out", tmp_path / "none").code == 3
    restorable(failback, exported, tmp_path / "out", "web@1")
    restorable(failback, disk, tmp_path / "out", "web@3")
    for changing in (lambda r: r.method == "PUT", lambda r: "delete" in r.query):
        once = iter([Answer(cut=True, after=True)])  # a probe begins anew, at other keys, so it loses one of a kind
        line.script = lambda r, c=changing, o=once: next(o, None) if c(r) else None  # type: ignore[misc]
        probed = failback("repository", "probe", "--json").result
        assert probed["abilities"]["conditional_put"]
        assert probed["abilities"]["multi_delete"]


def test_a_repository_is_made_once_though_the_answer_is_lost(
    minio_endpoint: Server, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    with proxied(minio_endpoint) as (seen, line):
        monkeypatch.setenv("FAILBACK_REPOSITORY", seen.address())
        documents = lambda r: r.method == "PUT" and r.path.endswith("repository.json")  # noqa: E731
        line.script = first_time(what=documents, answer=Answer(cut=True, after=True))
        made = failback("repository", "init", "--json")
        assert made.code == 0
        assert failback("repository", "info", "--json").result["repository"] == made.result["repository"]
        assert failback("repository", "init").code == 2


TROUBLE = {
    "cut before acting": Answer(cut=True),
    "cut in the middle of the answer": Answer(after=True, short=10),
    "500": Answer(500, "InternalError"),
    "503": Answer(503, "ServiceUnavailable"),
    "slow": Answer(hang=0.2),
    "too slowly sent": Answer(400, "RequestTimeout"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_passes_is_only_slower(
    line: Line, exported: Path, disk: Path, tmp_path: Path, trouble: str, failback: Run
) -> None:
    uploads_only = trouble == "too slowly sent"
    line.script = first_time(what=lambda r: r.method == "PUT" or not uploads_only, answer=TROUBLE[trouble])
    assert failback("export", "web", "--disk", disk).code == 0
    restorable(failback, disk, tmp_path / "out", "web@2")
    restorable(failback, exported, tmp_path / "out", "web@1")
    assert failback("verify", "web@2", "--read").code == 0


def test_who_waits_for_a_store_is_told_what_for(line: Line, monkeypatch: pytest.MonkeyPatch, failback: Run) -> None:
    monkeypatch.setattr("pipeline.store.retry.PATIENCE", 0.0)
    monkeypatch.setenv("FAILBACK_RETRY_DEADLINE", "3")
    line.script = lambda _: DOWN
    done = failback("list")
    said(done)
    waiting = [text for text in done.err.splitlines() if "is tried again for" in text]
    assert len(waiting) == 1
    assert "repository.json" in waiting[0]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_store_whose_clock_is_an_hour_off_is_told_and_works(
    minio_endpoint: Server, disk: Path, tmp_path: Path, hours: int, change: Callable[[Path, int], None],
    monkeypatch: pytest.MonkeyPatch, failback: Run,
) -> None:  # fmt: skip
    """One that accepts requests all the same; those that don't say RequestTimeTooSkewed, as above."""
    with proxied(minio_endpoint, clock_ahead=timedelta(hours=hours)) as (seen, _line):
        monkeypatch.setenv("FAILBACK_REPOSITORY", seen.address())
        made = failback("repository", "init")
        assert made.code == 0
        assert f"clock is {3600} s {'ahead of' if hours > 0 else 'behind'}" in made.err.replace("3599", "3600").replace(
            "3601", "3600"
        )
        for sequence in (1, 2):
            assert failback("export", "web", "--disk", disk).code == 0
            change(disk, 2 * sequence)
        for sequence in (1, 2):
            assert failback("verify", f"web@{sequence}", "--read").code == 0
        assert failback("import", "web", "--out", tmp_path / "out").code == 0
        assert failback("forget", "web@1", "--reason", "old").code == 0
        doctor = failback("doctor")
        assert doctor.code == 11
        assert "clock" in doctor.out


@pytest.mark.slow
@pytest.mark.parametrize("command", ["export", "import"])
def test_a_server_killed_in_the_middle_is_waited_for(
    tmp_path: Path, disk: Path, command: str, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    """MinIO dies with a request under way; another one starts on its folder; the command ends as if nothing was."""
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 1 << 18)
    with run_minio(tmp_path / "first") as server, proxied(server) as (seen, line):
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FAILBACK_REPOSITORY", seen.address())
        assert failback("repository", "init").code == 0
        if command == "import":
            assert failback("export", "web", "--disk", disk).code == 0
        verb = "PUT" if command == "export" else "GET"
        died = threading.Event()

        def script(request: Request) -> Answer | None:
            packs = [r for r in line.requests if r.method == verb and "/packs/" in r.path]
            if len(packs) == 3 and not died.is_set():
                server.process.kill()
                server.process.wait()
                died.set()
            return None

        line.script = script
        done: list[Done] = []
        arguments = ("export", "web", "--disk", disk) if command == "export" else ("import", "web", "--out", tmp_path)
        thread = threading.Thread(target=lambda: done.append(failback(*arguments)))
        thread.start()
        assert died.wait(60)
        with run_minio(tmp_path / "second", objects=server.directory, bucket=False) as second:
            line.backend = second.endpoint
            thread.join(60)
            assert [d.code for d in done] == [0], done
            assert failback("verify", "web", "--read").code == 0
            restorable(failback, disk, tmp_path, "web@1")
