"""Apart: run a function in a process of its own, so that its memory is not on the account of what is measured later."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def apart(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of a module in a fresh process; arguments and answer are pickled, exceptions come back.

    Interrupted, it does not wait for the function: the process is killed.
    """
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments, **options).result()
        except KeyboardInterrupt:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
