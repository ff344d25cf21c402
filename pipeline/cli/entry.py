"""Where the `failback` command begins. It imports almost nothing, so that Ctrl-C is quiet from the first moment."""

from __future__ import annotations

import signal


def run() -> None:
    """The `failback` command.

    Until a command is under way (`ending_signals`) and after it there is nothing to clean up, and Ctrl-C ends the
    process as SIGTERM and SIGHUP do. Python would raise KeyboardInterrupt amidst imports, and print where.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # one that is ignored stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pipeline.cli.main import run

    run()
