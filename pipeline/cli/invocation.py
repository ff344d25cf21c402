"""One run of one command: its settings, output, log, signals, and how it ends."""

from __future__ import annotations

import inspect
import logging
import shlex
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import logs
from pipeline.cli import exitcodes, signals
from pipeline.cli.output import Output
from pipeline.cli.signals import ending_signals, number_of, signal_behind
from pipeline.config import Settings, load_settings
from pipeline.errors import FailbackError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from manifests.repository import RepositoryDocument
    from pipeline.keys.locks import Lock
    from pipeline.repository import Repository
    from pipeline.store.base import Store
    from pipeline.store.trace import Tally

RepositoryOption = Annotated[
    str,
    typer.Option(
        "--repository",
        "-r",
        metavar="URL",
        help="Where the repository is: s3://bucket/prefix?endpoint=https://host or /path. "
        "Default: FAILBACK_REPOSITORY, then the configuration file.",
        rich_help_panel="For every command",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel="For every command")
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print JSON lines: progress, then one result object.", rich_help_panel="For every command"
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Say more, and log every request to the store.", rich_help_panel="For every command"
    ),
]


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every command takes, before or after its name."""

    repository: str = ""
    quiet: bool = False
    json: bool = False
    verbose: bool = False

    def joined(self, other: Common) -> Common:
        """These, with what `other` says on top."""
        return Common(
            other.repository or self.repository,
            self.quiet or other.quiet,
            self.json or other.json,
            self.verbose or other.verbose,
        )


@dataclass(slots=True)
class Ending:
    """How a command ended: its exit code and what the result object holds."""

    code: int = exitcodes.OK
    values: dict[str, Any] = field(default_factory=dict)


class Invocation:
    """What a command gets as its first argument."""

    def __init__(self, name: str, common: Common) -> None:
        self.name = name
        self.common = common
        self.output = Output(quiet=common.quiet, as_json=common.json, redact=logs.redact)
        self.how_to_go_on: Callable[[], str] = lambda: ""
        """What an interrupted command tells its user."""
        self.grace_seconds = signals.GRACE_SECONDS
        """How long it may take to end when interrupted."""
        self.stack = ExitStack()
        self.started = time.monotonic()

    @cached_property
    def settings(self) -> Settings:
        settings = load_settings()
        return replace(settings, repository=self.common.repository or settings.repository)

    @cached_property
    def tally(self) -> Tally:
        from pipeline.store.trace import Tally

        return Tally()

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self.started

    @property
    def address(self) -> str:
        """The repository's address. Raises UsageError when nothing says it."""
        if not self.settings.repository:
            raise UsageError(
                "no repository is named",
                remedy='give --repository URL, set FAILBACK_REPOSITORY, or write repository = "URL" into '
                "~/.config/failback/failback.toml",
            )
        return self.settings.repository

    def open_store(self, *, create: bool = False, address: str = "") -> Any:
        """The store at the repository's address, or another; closed when the command ends."""
        from pipeline.store.open import open_store

        log = logs.logger().debug if self.common.verbose else None
        store = open_store(
            address or self.address, self.settings, create=create, tally=self.tally, log=log, tell=self.warn
        )
        self.stack.callback(store.close)
        return store

    def open_repository(self) -> Repository:
        return self._opened(self.open_store(), self.address, self.settings, self.locks)

    def open_other(
        self,
        address: str,
        *,
        key_file: Path | None = None,
        passphrase_file: Path | None = None,
        plain: bool = False,
        lagging: bool = False,
    ) -> Repository:
        """A second repository. Without a key of its own the first one's is tried; `plain`: that it is not encrypted is
        meant; `lagging`: it is only read, and may be an older copy of the first one."""
        from pipeline.keys.sources import locks_of

        settings = replace(self.settings, repository_id="", key_fingerprint="")
        if key_file or passphrase_file:
            settings = replace(settings, key_file=key_file, passphrase_file=passphrase_file, key_command="")
        return self._opened(
            self.open_store(address=address),
            address,
            settings,
            lambda: locks_of(settings),
            plain=plain,
            lagging=lagging,
        )

    def _opened(
        self,
        store: Store,
        address: str,
        settings: Settings,
        locks: Callable[[], list[Lock]],
        *,
        plain: bool = False,
        lagging: bool = False,
    ) -> Repository:
        from pipeline.keys.known import Expected, Pin, Seen
        from pipeline.keys.sources import refuse_plain
        from pipeline.repository import Repository
        from pipeline.store.address import place_of

        expected = Expected(settings.repository_id, settings.key_fingerprint)
        pin = Pin(settings.state_dir, place_of(address))

        def check(document: RepositoryDocument) -> None:
            expected.check(document, store.name)
            pin.check(document)
            if not plain:
                refuse_plain(document, settings, store.name)

        repository = Repository.open(store, locks, check=check)
        pin.remember(repository.document)
        repository.seen = Seen(settings.state_dir, repository.document.id)
        if not lagging:
            repository.seen.notice_keys(repository.sealing, store.name)
        return repository

    def locks(self, *, ask: bool = True) -> list[Lock]:
        """What may open an encrypted repository: as the settings say, else a passphrase that is asked for."""
        from pipeline.keys.sources import locks_of

        return locks_of(self.settings, ask=ask)

    def artifacts(self, machine: str) -> Path:
        """A folder for what the checks of a machine keep."""
        from manifests.names import encode_machine

        return self.settings.state_dir / "checks" / encode_machine(machine)

    def note(self, text: str) -> None:
        logs.logger().info("%s", text)
        self.output.note(text)

    def warn(self, text: str) -> None:
        logs.logger().warning("%s", text)
        self.output.warn(text)

    def failed_quietly(self, text: str) -> None:
        """A check that did not pass: `--quiet` has nothing else that says it."""
        logs.logger().error("%s", text)
        if self.output.quiet:
            self.output.error(text, "")

    def run(self, function: Callable[..., Ending | None], arguments: dict[str, Any]) -> int:
        """Run the command; returns the exit code. All errors end here."""
        with logs.opened(self._log_file(), verbose=self.common.verbose) as log:
            log.info("start: %s", shlex.join(logs.command_line()))
            code, outcome, values = exitcodes.OK, "done", dict[str, Any]()
            try:
                with ending_signals(self._give_up, lambda: self.grace_seconds), self.stack:
                    ending = function(self, **arguments) or Ending()
                    code, values = ending.code, ending.values
                    outcome = "done" if code == exitcodes.OK else "done with findings"
            except FailbackError as error:
                code, outcome = error.exit_code, "failed"
                remedy = error.remedy or exitcodes.REMEDIES.get(code, exitcodes.REMEDIES[exitcodes.FAILED])
                values = self._failed(type(error).__name__, error.message, remedy)
            except KeyboardInterrupt as signal:
                code, outcome, values = exitcodes.SIGNALLED + number_of(signal), "interrupted", self._interrupted()
            except BrokenPipeError:
                code, outcome = exitcodes.FAILED, "standard output was closed"
                raise
            except Exception as error:  # noqa: BLE001 - the last line: what nobody foresaw ends as a bug report
                log.error("%s", "".join(traceback.format_exception(error)))
                if (interrupt := signal_behind(error)) is not None:
                    code, outcome = exitcodes.SIGNALLED + number_of(interrupt), "interrupted"
                    values = self._interrupted()
                else:
                    code, outcome, values = exitcodes.BUG, "bug", self._bug(error)
            finally:
                self._end(outcome, code)
            self._tell_result(code, values)
            return code

    def _end(self, outcome: str, code: int) -> None:
        self._log_requests()
        logs.logger().info("end: %s, exit code %d after %.1f s", outcome, code, self.seconds)

    def _tell_result(self, code: int, values: dict[str, Any]) -> None:
        self.output.event(
            "result",
            command=self.name,
            ok=code == exitcodes.OK,
            exit_code=code,
            seconds=round(self.seconds, 3),
            **values,
        )

    def _bug(self, error: Exception) -> dict[str, Any]:
        message = f"this is a bug in failback: {type(error).__name__}: {error}"
        values = self._failed("Bug", message, f"the traceback is in {self._log_file()}; please report it")
        if self.common.verbose:
            self.output.error("".join(traceback.format_exception(error)).rstrip(), "")
        return values

    def _interrupted(self) -> dict[str, Any]:
        how = self.how_to_go_on() or "nothing was changed that the same command would not do again"
        return self._failed("Interrupted", f"{self.name} was interrupted", how)

    def _give_up(self, number: int) -> None:
        """The ending of a command that was interrupted and hangs."""
        code = exitcodes.SIGNALLED + number
        self._tell_result(code, self._interrupted())
        self._end("interrupted, and did not wait for what was on its way", code)
        logging.shutdown()

    def _failed(self, kind: str, message: str, remedy: str) -> dict[str, Any]:
        logs.logger().error("%s: %s (%s)", kind, message, remedy)
        self.output.error(message, remedy)
        return {"error": {"kind": kind, "message": message, "remedy": remedy}}

    def _log_file(self) -> Any:
        try:
            return self.settings.log_file or self.settings.state_dir / "failback.log"
        except FailbackError:
            return None  # the settings are what is wrong; the command says so

    def _log_requests(self) -> None:
        if "tally" not in self.__dict__:
            return
        parts = [
            f"{verb} {count.requests} ({count.errors} failed, {count.sent} bytes sent, "
            f"{count.received} received, {count.seconds:.2f} s)"
            for verb, count in sorted(self.tally.snapshot().items())
        ]
        logs.logger().info("requests: %s", "; ".join(parts) or "none")


def _flowing(text: str | None) -> str:
    """A docstring whose paragraphs are of one line each: a terminal breaks them where it is as wide as that."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def command(function: Callable[..., Ending | None]) -> Callable[..., None]:
    """Make `function(invocation, …)` a Typer command that takes the common options too."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = {"repository": (RepositoryOption, ""), "quiet": (QuietOption, False)}
    extra |= {"json": (JsonOption, False), "verbose": (VerboseOption, False)}

    def run(ctx: typer.Context, **given: Any) -> None:
        common = Common(*(given.pop(name) for name in extra))
        outer = ctx.obj if isinstance(ctx.obj, Common) else Common()
        name = " ".join(ctx.command_path.split()[1:])
        code = Invocation(name, outer.joined(common)).run(function, given)
        if code:
            raise typer.Exit(code)

    run.__name__, run.__doc__ = function.__name__, _flowing(function.__doc__)
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    parameters += [p.replace(kind=keyword) for p in own]
    parameters += [inspect.Parameter(n, keyword, annotation=a, default=d) for n, (a, d) in extra.items()]
    # Typer reads it there; typeshed knows it of no function.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {}
    return run
