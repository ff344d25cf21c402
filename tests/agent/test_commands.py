"""The commands: the code goes over a file, standard input or the environment; the list tells who is alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.conftest import Done, Run
from nbd.tools import needs_root
from servers import die_with_parent

from agent.conftest import AgentProcess

RUN = [sys.executable, "-c", "from pipeline.cli.main import run; run()", "agent", "run", "--idle", "0.5"]


def start(tmp_path: Path, *arguments: str, **environ: str) -> AgentProcess:
    """`failback agent run` on a host with its own state."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAILBACK_")}
    env |= {"FAILBACK_STATE_DIR": str(tmp_path / "agent-state"), "PYTHONPATH": str(Path(__file__).parents[2])} | environ
    return AgentProcess(
        subprocess.Popen(
            [*RUN, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=env, preexec_fn=die_with_parent,
        )
    )  # fmt: skip


def pair(failback: Run, tmp_path: Path) -> tuple[str, Path]:
    code = tmp_path / "code"
    done = failback("agent", "pair", "worker", "--no-wait", "--code-file", code, "--json")
    assert done.code == 0, done.err
    assert code.stat().st_mode & 0o777 == 0o600
    return str(done.result["agent"]), code


@needs_root
def test_pair_run_list_inventory_remove(repository: Path, failback: Run, tmp_path: Path) -> None:
    agent, code = pair(failback, tmp_path)
    assert "not answered" in failback("agent", "list").out
    running = start(tmp_path, FAILBACK_AGENT_CODE=code.read_text())
    line = running.says("fingerprint")
    listed = failback("agent", "list")
    assert f"{agent}  paired  this host" in listed.out
    fingerprint = line.rsplit("fingerprint ", 1)[1]
    assert len(fingerprint.split()) == 8
    disks = failback("agent", "inventory", agent, "--json").result["disks"]
    assert all({"path", "serials", "size", "in_use"} <= set(d) for d in disks)
    assert running.end() == 143
    # Later runs on this host need no code.
    again = start(tmp_path)
    again.says(agent)
    assert failback("agent", "remove", agent).code == 0
    assert again.process.wait(timeout=60) == 0
    assert agent not in failback("agent", "list").out


def test_a_code_is_never_taken_from_the_arguments(repository: Path, failback: Run, tmp_path: Path) -> None:
    _agent, code = pair(failback, tmp_path)
    done = failback("agent", "run", code.read_text().strip())
    assert done.code == 2
    done = failback("agent", "run", "--code", code.read_text().strip()[:200])
    assert done.code == 2


def test_without_a_code_the_command_says_where_it_looks(repository: Path, failback: Run) -> None:
    done = failback("agent", "run")
    assert done.code == 2
    assert "FAILBACK_AGENT_CODE" in done.err


def test_an_agent_that_is_gone_is_removed_by_force(repository: Path, failback: Run, tmp_path: Path) -> None:
    agent, _code = pair(failback, tmp_path)
    assert failback("agent", "inventory", agent).code == 14
    assert failback("agent", "remove", "worker-0000000000000000").code == 14
    assert failback("agent", "remove", agent).code == 0
    assert failback("agent", "list", "--json").result["agents"] == []


def test_the_policy_of_an_agent_names_its_mailbox(failback: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILBACK_REPOSITORY", "s3://bucket/prefix")
    done: Done = failback("repository", "policy", "--role", "agent", "--agent", "worker-0123456789abcdef")
    assert "mailbox/worker-0123456789abcdef/reports/*" in done.out
    assert failback("repository", "policy", "--role", "agent", "--machine", "web").code == 2
    assert failback("repository", "policy", "--role", "importer", "--agent", "x").code == 2
