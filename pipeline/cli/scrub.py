"""`failback scrub`: is everything in the repository still what it was when it was written?"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError
from pipeline.units import count, duration, size

if TYPE_CHECKING:
    from pipeline.mend.findings import Findings
    from pipeline.mend.harm import Harm
    from pipeline.mend.scrub import ScrubReport

SHOWN = 50
"""Rows printed for people; JSON has all."""
_RANGES = 3


@command
def scrub(
    invocation: Invocation,
    listing: Annotated[
        bool, typer.Option("--listing", help="Presence and size of what all points need; reads no data.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also decrypt, decompress and hash every chunk.")] = False,
    share: Annotated[
        str, typer.Option(metavar="1/N", help="Share of all objects this run reads: 1/30 when nothing is said.")
    ] = "",
    most: Annotated[
        str, typer.Option("--bytes", metavar="SIZE", help="Bytes this run reads instead of a share: 100G.")
    ] = "",
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Compare bytes with names only; nobody is named whom damage harms.")
    ] = False,
) -> Ending:
    """Scrub the repository: read a share of all objects, and name what is damaged down to the bytes of a disk.

    Each run goes on where the last one ended. Ends with code 5 when something is damaged and not repaired.
    """
    if listing and (deep or share or most or without_key):
        raise UsageError("--listing reads no data", remedy="run it without --deep, --share, --bytes and --without-key")
    if deep and without_key:
        raise UsageError("--deep needs the key", remedy="leave out --without-key")
    if share and most:
        raise UsageError("--share and --bytes are two ways to say how much", remedy="give one of them")
    part = None if most else _share(share or "1/30")
    limit = _bytes(most) if most else None

    from manifests.repository import KEY, RepositoryDocument
    from pipeline.cli.progress import shown
    from pipeline.mend.damage import damaged_ids
    from pipeline.mend.findings import Findings, find_harm
    from pipeline.mend.listing import scrub_listing
    from pipeline.mend.needs import needs_of_all
    from pipeline.mend.progress import Notebook
    from pipeline.mend.scrub import scrub_by_id
    from pipeline.mend.stand_in import with_stand_ins
    from pipeline.progress import Counters

    repository = None if without_key else invocation.open_repository()
    store = repository.store if repository else invocation.open_store()
    document = repository.document if repository else RepositoryDocument.decode(bytes(store.get(KEY)))
    with shown(invocation.output) as meter:
        looking = Counters(phase="scrub", disk="what points need")
        suspects = damaged_ids(repository) if repository else set()
        needs = needs_of_all(repository, tick=lambda: meter(looking)) if repository else None
        if listing and needs is not None:
            report = scrub_listing(store, needs, suspects=suspects, watch=meter)
        else:
            kind = "deep" if deep else "id"
            invocation.how_to_go_on = lambda: "run the same command again: it goes on from there"
            report = scrub_by_id(
                store,
                Notebook(invocation.settings.state_dir, document.id, kind, repository),
                share=part,
                most=limit,
                deep=repository if deep else None,
                needs=needs,
                suspects=suspects,
                root=repository.sealing.ring.root if repository and repository.sealing.ring else None,
                parallel=min(6, invocation.settings.parallel),
                watch=meter,
            )
        if repository is None or needs is None:
            findings = Findings(with_stand_ins(store, report.damages))
        else:
            findings = find_harm(repository, report, needs, tick=lambda: meter(looking))
    return _ending(invocation, report, findings, listing=listing)


def _share(text: str) -> Fraction:
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise UsageError(f"--share {text} is not a share", remedy="write 1/30, or 1 for everything")
    return share


def _bytes(text: str) -> int:
    from pipeline.config import bytes_of

    try:
        found = int(bytes_of(text))
    except ValueError:
        found = 0
    if found < 1:
        raise UsageError(f"--bytes {text} is not a number of bytes", remedy="write 500G or 2T")
    return found


def _ending(invocation: Invocation, report: ScrubReport, findings: Findings, *, listing: bool) -> Ending:
    say = invocation.output.say
    what = "listed" if listing else "read"
    say(f"{count(report.objects, 'object')} of {size(report.size)} {what} in {duration(invocation.seconds)}")
    if report.whole_rounds:
        say("  that was the last part: the next run begins a new round")
    if findings.unrecorded:
        invocation.warn(f"the damage could not be recorded for exports and repairs: {findings.unrecorded}")
    show_findings(invocation, findings)
    if findings.open:
        invocation.failed_quietly(f"{count(len(findings.open), 'object')} damaged, first {findings.open[0].detail}")
    return Ending(
        exitcodes.DAMAGED if findings.open else exitcodes.OK,
        {
            "way": what,
            "objects": report.objects,
            "bytes": report.size,
            "from": report.first,
            "to": report.at,
            "round_complete": report.whole_rounds,
            **findings_values(findings),
        },
    )


def show_findings(invocation: Invocation, findings: Findings) -> None:
    """For people."""
    say = invocation.output.say
    if not findings.damages:
        say("nothing is damaged")
        return
    kept = sum(damage.kept for damage in findings.damages)
    read = f"; {kept} are read from older versions" if kept else ""
    say(f"{count(len(findings.damages), 'object')} damaged, {len(findings.mended)} of them mended by relocation{read}:")
    for damage in findings.damages[:SHOWN]:
        say(f"  {damage.detail}" + (" (mended)" if damage.key in findings.mended else ""))
    if findings.harms:
        rows = [_row(harm) for harm in findings.harms[:SHOWN]]
        invocation.output.table(("POINT", "DISK", "LOST", "RANGES", "OBJECT"), rows, right=(1, 2))
    hidden = max(len(findings.damages) - SHOWN, 0) + max(len(findings.harms) - SHOWN, 0)
    if hidden:
        say(f"and {hidden} more; --json lists all")
    if findings.open:
        say(
            "`failback repair` mends it from a copy (--from), a surviving disk (--from-disk), or what other points hold"
        )


def _row(harm: Harm) -> tuple[str, ...]:
    shown = ", ".join(f"{length} at {offset}" for offset, length in harm.ranges[:_RANGES])
    more = f" and {len(harm.ranges) - _RANGES} more" if len(harm.ranges) > _RANGES else ""
    mended = f"{count(harm.relocated, 'chunk')} mended" if harm.relocated else ""
    text = "; ".join(part for part in (shown + more, mended, harm.text) if part)
    return harm.point, str(harm.disk), size(harm.bytes), text, harm.key


def findings_values(findings: Findings) -> dict[str, Any]:
    """For JSON."""
    return {
        "damaged": [
            {
                "key": d.key,
                "problem": d.problem,
                "detail": d.detail,
                "mended": d.key in findings.mended,
                "older_version": d.kept,
            }
            for d in findings.damages
        ],
        "harm": [
            {
                "point": harm.point,
                "disk": harm.disk,
                "key": harm.key,
                "bytes": harm.bytes,
                "ranges": harm.ranges,
                "relocated": harm.relocated,
                "text": harm.text,
            }
            for harm in findings.harms
        ],
    }
