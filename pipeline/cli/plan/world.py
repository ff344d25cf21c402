"""What conditions and checks of a plan may look at, opened for a command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pipeline.cli.grounds import ground_of

if TYPE_CHECKING:
    from pipeline.cli.invocation import Invocation
    from pipeline.home.site import Ground, Site
    from pipeline.plans.condition import World
    from pipeline.plans.model import Plan
    from pipeline.source import Source


@contextmanager
def sourced(invocation: Invocation, plan: Plan) -> Iterator[tuple[Ground, Source]]:
    """What a plan is worked on with, outside of runs."""
    from pipeline.runs.crew import source_of

    ground = ground_of(invocation, plan.mapping)
    source = source_of(ground, plan, ground.control)
    try:
        yield ground, source
    finally:
        source.close()


@contextmanager
def opened(invocation: Invocation, plan: Plan) -> Iterator[World]:
    """Of no run. The store's time is asked for, by writing to its clock."""
    from pipeline.home.site import open_site
    from pipeline.plans.condition import World
    from pipeline.runs.store_clock import StoreClock

    lock = threading.Lock()
    with ExitStack() as stack:
        ground, source = stack.enter_context(sourced(invocation, plan))

        def site(machine: str) -> Site:
            context = open_site(ground, plan.target, machine, "import")
            with lock:
                return stack.enter_context(context)

        yield World(
            repository=ground.repository,
            plan=plan,
            now=StoreClock(ground.repository.store, "runs/clock").look(b"{}"),
            source=lambda: source,
            site=site,
            state=ground.state,
        )
