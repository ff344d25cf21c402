"""`failback agent`: the program that runs elsewhere, and the host that tells it what to do."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.agent.code import PairingCode
    from pipeline.agent.controller import Agents

app = typer.Typer(no_args_is_help=True)
CODE = "FAILBACK_AGENT_CODE"
"""Environment variable with a pairing code."""
_AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="As `failback agent list` shows it.")]


@command
def run(
    invocation: Invocation,
    code: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file with the pairing code; '-': standard input. Default: FAILBACK_AGENT_CODE."
        ),
    ] = None,
    idle: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.5, max=600, help="Between looks for orders while nothing goes on.")
    ] = 10.0,
) -> Ending:
    """Be an agent: look for orders in the repository, write the disks that they name, report. Runs until it is stopped.

    The code is needed once; later runs on this host find it. It is never an argument: those can be seen by all users.
    """
    import socket
    from importlib.metadata import version

    from pipeline.agent.journal import Journal, known_agents
    from pipeline.agent.poll import Pace
    from pipeline.agent.program import AgentProgram

    state = invocation.settings.state_dir
    pairing = _code(code, known_agents(state))
    journal = Journal(state, pairing.agent)
    invocation.stack.callback(journal.close)
    if pairing.login is not None:
        os.environ.update(pairing.login.environ())
    store = invocation.open_store(address=_address(pairing, journal.folder))
    identity = journal.identity(pairing)
    program = AgentProgram(
        store,
        journal,
        identity,
        pace=Pace(idle=idle),
        host=socket.gethostname(),
        version=version("failback"),
        tell=invocation.note,
    )
    program.answer()
    invocation.note(f"agent {pairing.agent} of {store.name}; fingerprint {identity.pair.public.fingerprint}")
    invocation.how_to_go_on = lambda: "what it was ordered goes on when it runs again"
    program.run()
    return Ending(values={"agent": pairing.agent, "retired": program.retired})


@command
def pair(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: a-z, 0-9, '-'.")],
    address: Annotated[
        str, typer.Option(metavar="URL", help="Of the repository as the agent reaches it, if not as from here.")
    ] = "",
    login: Annotated[
        str,
        typer.Option(
            metavar="PROFILE",
            help="Profile of ~/.aws whose credentials go into the code; 'environment': those of this command. "
            "Default: the agent has its own.",
        ),
    ] = "",
    minutes: Annotated[float, typer.Option(metavar="N", min=1, help="How long the code can be answered.")] = 60,
    code_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the code there, mode 0600, instead of printing it.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the agent has answered.")] = True,
) -> Ending:
    """Make a pairing code: shown once, answered once. This host alone then gives that agent orders."""
    from pipeline.agent.code import StoreLogin

    agents = _agents(invocation)
    found = StoreLogin.of_profile(login) if login else None
    code = agents.pair(name, address or invocation.address, login=found, within=minutes * 60)
    values: dict[str, Any] = {"agent": code.agent, "expires": code.expires}
    text = code.encode()
    if code_file is not None:
        _write_secret(code_file, text)
        invocation.output.say(f"the pairing code of {code.agent} is in {code_file}")
    else:
        invocation.output.say(
            "give this line to `failback agent run` on the agent's host, and to nobody else:", "", text, ""
        )
        values["code"] = text
    if not wait:
        return Ending(values=values)
    invocation.note(f"waiting for {code.agent} to answer until {code.expires}")
    invocation.how_to_go_on = lambda: f"the code stays good; `failback agent list` shows whether {code.agent} answered"
    pairing = agents.await_answer(code.agent, minutes * 60)
    assert pairing.theirs is not None
    invocation.output.say(
        f"paired with {pairing.agent} on {pairing.host}",
        f"fingerprint {pairing.theirs.fingerprint}: it must say the same",
    )
    return Ending(values=values | {"fingerprint": pairing.theirs.fingerprint, "host": pairing.host})


@command
def list_(invocation: Invocation) -> Ending:
    """Show the agents of the repository, and when each gave its last sign of life."""
    from pipeline.units import moment

    agents = _agents(invocation)
    found = []
    for listed in agents.list():
        if listed.ours and not listed.paired and not listed.problem and agents.answered(listed.agent):
            listed = replace(listed, paired=True)
        found.append(listed)
    rows = [
        (
            each.agent,
            each.problem or ("paired" if each.paired else "not answered"),
            "this host" if each.ours else "another host",
            each.host,
            moment(each.seen) if each.seen else "never",
            str(each.active),
        )
        for each in found
    ]
    invocation.output.table(("agent", "state", "obeys", "runs on", "last seen", "orders"), rows, right=(5,))
    return Ending(
        values={
            "agents": [
                {
                    "agent": each.agent, "ours": each.ours, "paired": each.paired, "host": each.host,
                    "seen": each.seen, "active": each.active, "problem": each.problem,
                }
                for each in found
            ]
        }
    )  # fmt: skip


@command
def inventory(invocation: Invocation, agent: _AgentArgument) -> Ending:
    """Show the disks of an agent's host, and how they are named in orders: by serial number and size."""
    from pipeline.units import size

    disks = _agents(invocation).agent(agent).inventory()
    rows = [
        (
            disk["path"],
            ", ".join(disk["serials"]) or "none: cannot be named",
            str(disk["size"]),
            size(disk["size"]),
            disk["model"],
            disk["in_use"] or ("read-only" if disk["read_only"] else ""),
        )
        for disk in disks
    ]
    invocation.output.table(("path", "serial numbers", "bytes", "size", "model", "in use"), rows, right=(2, 3))
    return Ending(values={"agent": agent, "disks": disks})


@command
def remove(
    invocation: Invocation,
    agent: _AgentArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that does not answer or obeys another host.")
    ] = False,
) -> Ending:
    """Tell an agent to end, and take its mailbox away. Its credentials of the bucket are the bucket's to revoke."""
    _agents(invocation).remove(agent, force=force)
    invocation.output.say(f"{agent} is removed")
    return Ending(values={"agent": agent})


def _agents(invocation: Invocation) -> Agents:
    from pipeline.agent.controller import Agents
    from pipeline.home.control import Controller

    control = Controller(tell=invocation.note)
    return Agents(invocation.open_repository(), invocation.settings.state_dir, control)


def _code(file: Path | None, known: list[PairingCode]) -> PairingCode:
    """From where the user says, else the environment, else what an earlier run was told."""
    from pipeline.agent.code import PairingCode

    text = os.environ.pop(CODE, "")  # programs that we start need not know it
    if file is not None and str(file) == "-":
        text = sys.stdin.read()
    elif file is not None:
        try:
            text = file.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the pairing code in {file}: {error}", remedy="check the file") from error
    if text.strip():
        return PairingCode.decode(text)
    if len(known) == 1:
        return known[0]
    raise UsageError(
        "there is no pairing code" if not known else f"this host has been {len(known)} agents",
        remedy=f"`failback agent pair` makes one; give it with --code FILE, on standard input (--code -), or in {CODE}",
    )


def _address(code: PairingCode, folder: Path) -> str:
    """Of the repository, with the certificate that came along."""
    if not code.ca:
        return code.address
    from pipeline.store.address import S3Address, parse_address

    address = parse_address(code.address)
    assert isinstance(address, S3Address)
    ca = folder / "ca.pem"
    ca.write_text(code.ca, "ascii")
    return str(replace(address, ca=str(ca)))


def _write_secret(path: Path, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}", remedy="name a file that is not there") from error


app.command("run")(run)
app.command("pair")(pair)
app.command("list")(list_)
app.command("inventory")(inventory)
app.command("remove")(remove)
