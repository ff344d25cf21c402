"""One attempt of a hook."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.verify.hook import Outcome

Look = Callable[..., Outcome]
