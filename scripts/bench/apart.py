"""Apart: run a function in a process of its own, so that its memory is not on the account of what is measured later."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def apart(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of a module in a fresh process; arguments and answer are pickled, exceptions come back."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()
