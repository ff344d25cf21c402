"""Keys on the command line: who may do what, and what is said when a key or the repository is not the right one."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import CHUNK, Done, Run

PASSPHRASE = "nine lives of a stray cat"


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Open the repository with this and nothing else."""

    def chosen(*, key_file: Path | None = None, passphrase_file: Path | None = None, command: str = "") -> None:
        for name, value in (("KEY_FILE", key_file), ("PASSPHRASE_FILE", passphrase_file), ("KEY_COMMAND", command)):
            if value:
                monkeypatch.setenv(f"FAILBACK_{name}", str(value))
            else:
                monkeypatch.delenv(f"FAILBACK_{name}", raising=False)

    return chosen


def added(failback: Run, *arguments: object) -> str:
    """The name of a new key slot."""
    done = failback("key", "add", "--label", "somebody", "--json", *arguments)
    assert done.code == 0, done
    return str(done.lines[-1]["slot"])


def refused(done: Done, *words: str, code: int = 13) -> None:
    assert done.code == code, done
    for word in words:
        assert word in done.err, done.err
    assert len(done.err.splitlines()) >= 2, "without a remedy"


def test_a_new_repository_is_encrypted_and_its_key_file_is_for_its_owner_alone(
    repository: Path, key: Path, disk: Path, failback: Run
) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert failback("export", "web", "--disk", disk).code == 0
    chunk = disk.read_bytes()[:64]
    for path in repository.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert chunk not in data, path
            if path.name != "repository.json" and "keys" not in path.parts:
                assert str(disk).encode() not in data, path


def test_without_a_key_or_a_word_no_repository_is_made(empty: Path, use: Callable[..., None], failback: Run) -> None:
    refused(failback("repository", "init", "--no-encryption"), "a key is set", code=2)
    use()
    refused(failback("repository", "init"), "--no-encryption", "--key-file", code=2)
    assert not (empty / "repository.json").exists()
    done = failback("repository", "init", "--no-encryption")
    assert done.code == 0
    assert "not encrypted" in done.err
    assert failback("list").code == 0


def test_a_passphrase_opens_and_another_does_not(
    repository: Path, passphrase: Path, disk: Path, use: Callable[..., None], failback: Run
) -> None:
    added(failback, "--role", "admin", "--passphrase-file", passphrase)
    use(passphrase_file=passphrase)
    assert failback("export", "web", "--disk", disk).code == 0
    passphrase.write_text("nine lives of a stray dog\n")
    refused(failback("list"), "no key slot", str(passphrase), "1 slot", "failback key add")


def test_a_short_passphrase_is_not_taken(empty: Path, tmp_path: Path, failback: Run) -> None:
    (tmp_path / "short").write_text("secret\n")
    refused(failback("repository", "init", "--passphrase-file", tmp_path / "short"), "at least 12", code=2)


def test_a_lost_key_file_is_named(repository: Path, key: Path, failback: Run) -> None:
    key.unlink()
    refused(failback("list"), str(key), "not there")
    key.write_text("failback-key-1 " + "00" * 32 + "\n")
    refused(failback("list"), "no key slot", str(key))
    key.write_text("rubbish")
    refused(failback("list"), "is not a key file")


def test_a_command_opens_as_a_key_management_service_would(
    repository: Path, tmp_path: Path, use: Callable[..., None], failback: Run
) -> None:
    service = tmp_path / "service.py"
    service.write_text(
        "import sys, os\nassert os.environ['FAILBACK_REPOSITORY_ID']\ntext = sys.stdin.readline().strip()\n"
        "print(text[::-1]) if sys.argv[1] in ('wrap', 'unwrap') else sys.exit('what?')\n"
    )
    command = f"{sys.executable} {service}"
    added(failback, "--role", "importer", "--key-command", command)
    use(command=command)
    assert failback("list").code == 0
    service.write_text("import sys; sys.exit('the service is asleep')")
    refused(failback("list"), "the service is asleep")
    use(command="/nowhere/at/all")
    refused(failback("list"), "does not run")


def test_a_removed_slot_opens_nothing_and_what_its_holder_wrote_stays(
    repository: Path, key: Path, disk: Path, tmp_path: Path, use: Callable[..., None], failback: Run,
    change: Callable[[Path, int], None],
) -> None:  # fmt: skip
    other = tmp_path / "other"
    slot = added(failback, "--role", "exporter", "--key-file", other)
    copy = repository / "keys" / slot
    stolen = copy.read_bytes()
    use(key_file=other)
    assert failback("export", "web", "--disk", disk).code == 0
    change(disk, 6)
    use(key_file=key)
    done = failback("key", "remove", slot)
    assert done.code == 0
    assert "1 objects that it signed stay good" in done.out
    assert failback("import", "web", "--out", tmp_path / "out").code == 0
    use(key_file=other)
    refused(failback("list"), "no key slot", str(other))
    # Its holder kept a copy of the slot, and the owner of the bucket puts it back: what it signs is not believed.
    copy.write_bytes(stolen)
    refused(failback("export", "web", "--disk", disk), "revoked")
    use(key_file=key)
    assert failback("verify", "web@1", "--read").code == 0


def test_nobody_removes_the_slot_that_lets_them_in(
    repository: Path, key: Path, tmp_path: Path, use: Callable[..., None], failback: Run
) -> None:
    [first] = [path.name for path in (repository / "keys").iterdir()]
    added(failback, "--role", "admin", "--key-file", tmp_path / "other")
    refused(failback("key", "remove", first), "opened the repository now", "another administrator's key", code=2)
    assert failback("list").code == 0
    use(key_file=tmp_path / "other")
    assert failback("key", "remove", first).code == 0


def test_a_key_for_one_machine_says_of_which(repository: Path, tmp_path: Path, failback: Run) -> None:
    done = failback(
        "key", "add", "--role", "exporter", "--machine", "web", "--label", "w", "--key-file", tmp_path / "other"
    )
    assert "exporting web, and nothing else" in done.out


def test_a_file_that_is_no_key_file_is_named(
    repository: Path, key: Path, tmp_path: Path, use: Callable[..., None], failback: Run
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(bytes(range(128, 160)))
    use(key_file=wrong)
    refused(failback("list"), f"{wrong} is no key file", "recovery sheet")


def test_the_last_administrator_stays(repository: Path, failback: Run) -> None:
    [slot] = [path.name for path in (repository / "keys").iterdir()]
    refused(failback("key", "remove", slot), "last administrator", code=2)


def test_roles_on_one_repository(
    repository: Path, key: Path, disk: Path, tmp_path: Path, use: Callable[..., None], failback: Run
) -> None:
    keys = {role: tmp_path / role for role in ("exporter", "importer", "janitor")}
    added(failback, "--role", "exporter", "--machine", "web", "--key-file", keys["exporter"])
    added(failback, "--role", "importer", "--key-file", keys["importer"])
    added(failback, "--role", "janitor", "--key-file", keys["janitor"])
    use(key_file=keys["exporter"])
    assert failback("export", "web", "--disk", disk).code == 0
    refused(failback("export", "db", "--disk", disk), "may not write", "sessions/db/")
    refused(failback("forget", "web@1", "--reason", "x", "--force"), "may not write", "tombstones/web/")
    refused(failback("key", "add", "--role", "admin", "--label", "me", "--key-file", tmp_path / "k"), "administrator")
    use(key_file=keys["importer"])
    assert failback("import", "web", "--out", tmp_path / "out").code == 0
    refused(failback("export", "web", "--disk", disk), "may not write")
    use(key_file=keys["janitor"])
    assert failback("list", "web").code == 0
    assert failback("verify", "web").code == 0
    refused(failback("verify", "web", "--read"), "janitor")
    refused(failback("import", "web", "--out", tmp_path / "out2"), "janitor")
    assert failback("forget", "web@1", "--reason", "old", "--force").code == 0


def test_renewed_data_keys_are_used_by_all_and_depend_on_nothing_old(
    repository: Path, key: Path, disk: Path, tmp_path: Path, use: Callable[..., None], failback: Run,
    change: Callable[[Path, int], None],
) -> None:  # fmt: skip
    other = tmp_path / "other"
    added(failback, "--role", "exporter", "--key-file", other)
    assert failback("export", "web", "--disk", disk).code == 0
    old = {path.name for path in (repository / "packs").rglob("*") if path.is_file()}
    assert failback("key", "rotate", "--data").code == 0
    change(disk, 6)
    use(key_file=other)
    done = failback("export", "web", "--disk", disk)
    assert done.code == 0
    assert "keys were renewed after web@1" in done.out
    use(key_file=key)
    # Nothing that the old keys sealed is needed any more.
    for name in old:
        (repository / "packs" / name[:2] / name).unlink()
    assert failback("verify", "web@2", "--read").code == 0
    assert failback("import", "web@2", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "web-disk0.raw").read_bytes() == disk.read_bytes()
    change(disk, 8)
    done = failback("export", "web", "--disk", disk)
    assert "incremental, compared with web@2" in done.out


def test_a_point_brought_back_after_a_renewal_brings_no_old_keys_into_new_points(
    repository: Path, disk: Path, tmp_path: Path, failback: Run, change: Callable[[Path, int], None]
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    kept = disk.read_bytes()
    change(disk, 6)
    assert failback("export", "web", "--disk", disk).code == 0
    old = [path for path in (repository / "packs").rglob("*") if path.is_file()]
    assert failback("key", "rotate", "--data").code == 0
    assert failback("forget", "web@1", "--reason", "a slip").code == 0
    back = failback("unforget", "web@1")
    assert back.code == 0
    assert "web@3" in back.out
    assert "is the newest now" in back.err
    assert failback("import", "web@3", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "web-disk0.raw").read_bytes() == kept
    done = failback("export", "web", "--disk", disk)
    assert "keys were renewed after web@3" in done.out
    for path in old:
        path.unlink()
    assert failback("verify", "web@4", "--read").code == 0


def test_a_key_is_changed_without_changing_the_data(
    repository: Path, key: Path, passphrase: Path, disk: Path, use: Callable[..., None], failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    assert failback("key", "rotate", "--passphrase-file", passphrase).code == 0
    refused(failback("list"), "no key slot")
    use(passphrase_file=passphrase)
    assert failback("verify", "web", "--read").code == 0
    assert len(list((repository / "keys").iterdir())) == 1


def test_the_recovery_sheet_opens_a_repository_on_a_fresh_host(
    repository: Path, key: Path, disk: Path, tmp_path: Path, use: Callable[..., None], failback: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert failback("export", "web", "--disk", disk).code == 0
    sheet = failback("key", "export", "--with-key").out
    line = re.search(r"failback-key-1 [0-9a-f]{64}", sheet)
    assert line is not None
    assert "web@1" in sheet
    key.unlink()
    paper = tmp_path / "paper"
    paper.write_text(line[0] + "\n")
    use(key_file=paper)
    monkeypatch.setenv("FAILBACK_STATE_DIR", str(tmp_path / "fresh"))
    fingerprint = re.search(r"fingerprint +([0-9a-f]{32})", sheet)
    assert fingerprint is not None
    monkeypatch.setenv("FAILBACK_KEY_FINGERPRINT", fingerprint[1])
    assert failback("import", "web", "--out", tmp_path / "out").code == 0
    monkeypatch.setenv("FAILBACK_KEY_FINGERPRINT", "0" * 32)
    refused(failback("list"), "fingerprint", "0" * 32)


def test_another_repository_in_the_place_of_the_known_one_is_refused(
    repository: Path, key: Path, disk: Path, tmp_path: Path, failback: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    shutil.move(repository, tmp_path / "away")
    # Somebody else puts one there, from his own host: plain, and encrypted.
    home = os.environ["FAILBACK_STATE_DIR"]
    for how in (["--no-encryption"], ["--key-file", tmp_path / "his"]):
        monkeypatch.setenv("FAILBACK_STATE_DIR", str(tmp_path / f"attacker{len(how)}"))
        with monkeypatch.context() as his:
            his.delenv("FAILBACK_KEY_FILE")
            assert failback("repository", "init", *how).code == 0
        monkeypatch.setenv("FAILBACK_STATE_DIR", home)
        refused(failback("export", "web", "--disk", disk), str(repository), "known here")
        shutil.rmtree(repository)
    shutil.move(tmp_path / "away", repository)
    assert failback("export", "web", "--disk", disk).code == 0


def test_a_repository_that_lost_its_encryption_is_refused_even_by_a_host_that_has_the_key_only(
    repository: Path, key: Path, disk: Path, tmp_path: Path, failback: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    from dataclasses import replace

    from manifests.repository import RepositoryDocument

    document = RepositoryDocument.decode((repository / "repository.json").read_bytes())
    monkeypatch.setenv("FAILBACK_STATE_DIR", str(tmp_path / "fresh"))
    (repository / "repository.json").chmod(0o600)
    (repository / "repository.json").write_bytes(replace(document, chunk_size=1 << 20).encode())
    refused(failback("list"), "repository.json", "not the one this key was made for")
    (repository / "repository.json").write_bytes(replace(document, encryption=None).encode())
    refused(failback("import", "web", "--out", tmp_path / "out"), "not encrypted", "a key for it is set")
    monkeypatch.delenv("FAILBACK_KEY_FILE")
    refused(failback("import", "web", "--out", tmp_path / "out"), "manifests/web/0000000001 is encrypted", code=5)


def test_a_bucket_that_was_set_back_is_noticed(
    repository: Path, disk: Path, tmp_path: Path, failback: Run, change: Callable[[Path, int], None]
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    shutil.copytree(repository, tmp_path / "old")
    change(disk, 6)
    assert failback("export", "web", "--disk", disk).code == 0
    assert failback("list", "web").code == 0
    shutil.rmtree(repository)
    shutil.move(tmp_path / "old", repository)
    for command in (["list", "web"], ["import", "web", "--out", tmp_path / "out"], ["export", "web", "--disk", disk]):
        refused(failback(*command), "was set back", "web", "2")


def test_renewed_keys_and_revoked_writers_cannot_be_hidden_from_a_host_that_knew_them(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    slot = added(failback, "--role", "exporter", "--key-file", tmp_path / "other")
    assert failback("key", "rotate", "--data").code == 0
    assert failback("key", "remove", slot).code == 0
    assert failback("list").code == 0
    for folder, words in (("generations", "generation 2"), ("revoked", "revoked")):
        [record] = (repository / "keys" / folder).iterdir()
        kept = record.read_bytes()
        record.chmod(0o600)
        record.unlink()
        refused(failback("export", "web", "--disk", disk), str(repository), words)
        record.write_bytes(kept)
        assert failback("list").code == 0
    assert failback("export", "web", "--disk", disk).code == 0


def test_a_slot_that_was_changed_by_somebody_is_named(
    repository: Path, key: Path, tmp_path: Path, failback: Run
) -> None:
    slot = added(failback, "--role", "importer", "--key-file", tmp_path / "other")
    path = repository / "keys" / slot
    document = json.loads(path.read_text())
    document["role"] = "admin"
    path.chmod(0o600)
    path.write_text(json.dumps(document))
    done = failback("key", "list")
    assert slot in done.err
    assert "not signed by the repository's root key" in done.err
    # Nor do new keys go to a box that somebody put there.
    refused(failback("key", "rotate", "--data"), slot, code=5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_kib", 1 << 30),
        ("memory_kib", 8),
        ("iterations", 1),
        ("iterations", 10**9),
        ("lanes", 0),
        ("salt", "00"),
    ],
)
def test_a_slot_cannot_ask_for_an_unreasonable_derivation(
    repository: Path, key: Path, passphrase: Path, use: Callable[..., None], failback: Run, field: str, value: object
) -> None:
    slot = added(failback, "--role", "importer", "--passphrase-file", passphrase)
    path = repository / "keys" / slot
    document = json.loads(path.read_text())
    document["lock"][field] = value
    path.chmod(0o600)
    path.write_text(json.dumps(document))
    use(passphrase_file=passphrase)
    refused(failback("list"), slot, "unreasonable")


def test_secrets_are_in_no_log_and_no_output(
    empty: Path, tmp_path: Path, disk: Path, failback: Run, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use()
    monkeypatch.setenv("FAILBACK_PASSPHRASE", PASSPHRASE)
    assert failback("repository", "init", "-v").code == 0
    done = failback("export", "web", "--disk", disk, "-v")
    assert done.code == 0
    said = done.out + done.err
    for path in Path(os.environ["FAILBACK_STATE_DIR"]).rglob("*.log*"):
        said += path.read_text(errors="replace")
    assert PASSPHRASE not in said
    assert CHUNK  # the disk had something to send


@pytest.mark.parametrize("role", ["importer", "exporter"])
@pytest.mark.parametrize("way", [("--share", "1", "--deep"), ("--share", "1"), ("--listing",)])
def test_who_may_not_record_damage_is_told_of_it_all_the_same(
    repository: Path, disk: Path, tmp_path: Path, use: Callable[..., None], failback: Run, role: str, way: tuple[str]
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    added(failback, "--role", role, "--key-file", tmp_path / "other")
    use(key_file=tmp_path / "other")
    assert failback("scrub", *way).code == 0
    [pack] = [path for path in (repository / "packs").rglob("*") if path.is_file()]
    os.truncate(pack, pack.stat().st_size - 1)
    done = failback("scrub", *way)
    assert done.code == 5
    assert pack.name in done.out
    assert "could not be recorded" in done.err
