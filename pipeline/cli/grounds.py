"""From a command's settings to what importers are made with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.cli.invocation import Invocation
    from pipeline.home.control import Controller
    from pipeline.home.site import Ground
    from pipeline.mapping import Mapping
    from pipeline.progress import Watch
    from pipeline.repository import Repository


def ground_of(
    invocation: Invocation,
    mapping: Mapping,
    *,
    watch: Watch | None = None,
    out: Path | None = None,
    seeds: tuple[str, ...] = (),
    repository: Repository | None = None,
    control: Controller | None = None,
) -> Ground:
    """Opens the repository, where it is not given. Warns of options for platforms that are not installed."""
    from pipeline.home.control import Controller
    from pipeline.home.site import Ground
    from pipeline.importers import importer_names
    from pipeline.progress import ignore
    from pipeline.store.address import parse_address

    settings = invocation.settings
    if unknown := sorted(mapping.options.keys() - set(importer_names())):
        known = ", ".join(importer_names())
        invocation.warn(f"the mapping has options for {', '.join(unknown)}, which is not installed (known: {known})")
    return Ground(
        repository or invocation.open_repository(),
        settings.state_dir,
        control or Controller(watch=watch or ignore, tell=invocation.note),
        options=mapping.options,
        memory=settings.memory_mib << 20,
        parallel=min(6, settings.parallel),
        out=out.absolute() if out else None,
        seeds=seeds,
        address=str(parse_address(invocation.address)),
        again=(sys.executable, "-m", "pipeline.cli.main", "--repository", str(parse_address(invocation.address))),
    )
