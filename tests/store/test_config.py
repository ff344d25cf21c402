"""Settings come from the environment, then from files; what is wrong is named with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import config
from pipeline.config import Settings, default_state_dir, load_settings
from pipeline.errors import UsageError


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's file, moved to a place that can be written."""
    path = tmp_path / "etc" / "failback.toml"
    path.parent.mkdir()
    monkeypatch.setattr(config, "SYSTEM_FILE", path)
    return path


@pytest.fixture
def user(tmp_path: Path, system: Path) -> Path:
    path = tmp_path / "home" / ".config" / "failback" / "failback.toml"
    path.parent.mkdir(parents=True)
    return path


def test_without_anything_there_are_defaults(system: Path) -> None:
    settings = load_settings({"XDG_STATE_HOME": "/s"})
    assert settings == Settings(state_dir=Path("/s/failback"))
    assert settings.memory_mib == 256


def test_the_environment_wins_over_the_user_and_the_user_over_the_system(system: Path, user: Path) -> None:
    system.write_text('parallel = 1\nmemory_mib = 100\nrepository = "/system"\n')
    user.write_text('memory_mib = 200\nrepository = "/user"\n')
    settings = load_settings({"FAILBACK_REPOSITORY": "/environment"})
    assert (settings.parallel, settings.memory_mib, settings.repository) == (1, 200, "/environment")


def test_a_named_file_is_the_only_one(system: Path, tmp_path: Path) -> None:
    system.write_text("parallel = 1\n")
    named = tmp_path / "named.toml"
    named.write_text("memory_mib = 64\n")
    settings = load_settings({"FAILBACK_CONFIG": str(named)})
    assert (settings.parallel, settings.memory_mib) == (Settings().parallel, 64)


def test_a_named_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"FAILBACK_CONFIG names .*nowhere.toml"):
        load_settings({"FAILBACK_CONFIG": str(tmp_path / "nowhere.toml")})


@pytest.mark.parametrize(
    ("text", "bytes_a_second"), [("0", 0), ("1000", 1000), ("20M", 20 << 20), ("1.5 GiB/s", 1.5 * 2**30), ("5kb", 5120)]
)
def test_a_rate_may_be_written_with_a_unit(system: Path, text: str, bytes_a_second: float) -> None:
    assert load_settings({"FAILBACK_UPLOAD_LIMIT": text}).upload_limit == bytes_a_second


def test_an_unknown_key_is_refused_with_file_and_key(system: Path) -> None:
    system.write_text("paralel = 4\n")
    with pytest.raises(UsageError, match=r"etc/failback.toml has the unknown key 'paralel'"):
        load_settings({})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("parallel = 0", "at least 1"),
        ("parallel = 1.5", "whole number"),
        ("parallel = true", "not a number"),
        ("memory_mib = 8", "at least 32"),
        ('upload_limit = "fast"', "bytes a second"),
        ("upload_limit = -1", "bytes a second"),
        ("upload_limit = 0.001", "bytes a second"),
        ('upload_limit = "0.001"', "bytes a second"),
        ("request_limit = 1e-300", "requests a second"),
        ("request_timeout = 0", "positive"),
        ("request_timeout = nan", "positive"),
        ("parallel = inf", "whole number"),
        ("repository = 1", "not a text"),
        ('state_dir = "relative"', "absolute"),
        ("parallel =", "not valid TOML"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(system: Path, line: str, says: str) -> None:
    system.write_text(line + "\n")
    with pytest.raises(UsageError, match=says) as caught:
        load_settings({})
    assert "failback.toml" in str(caught.value)
    if "TOML" not in says:
        assert line.split()[0] in str(caught.value)


def test_a_wrong_variable_is_refused_by_its_name(system: Path) -> None:
    with pytest.raises(UsageError, match="FAILBACK_PARALLEL is not a number: 'many'"):
        load_settings({"FAILBACK_PARALLEL": "many"})


def test_state_is_kept_where_the_user_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_state_dir({}) == Path("/var/lib/failback")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    assert default_state_dir({}) == Path("/home/me/.local/state/failback")
    assert default_state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/failback")


def test_a_store_is_opened_without_slow_imports() -> None:
    code = (
        "import sys\n"
        "from pipeline.config import load_settings\n"
        "from pipeline.store.open import open_store\n"
        "open_store('s3://b?endpoint=http://127.0.0.1:1', load_settings({}))\n"
        "print([name for name in ('boto3', 'botocore', 'pydantic', 'concurrent.futures') if name in sys.modules])\n"
    )
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.strip() == "[]"
