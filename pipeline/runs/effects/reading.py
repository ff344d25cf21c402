"""Recovery points on the way home: exports while the machine works, the last one, and the set they form."""

from __future__ import annotations

import time
from contextlib import suppress

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import set_key
from pipeline.catalogue import Point
from pipeline.collect.record import hold, release
from pipeline.errors import AlreadyExists, CatalogueError, FailbackError, SourceError
from pipeline.plans.model import Plan
from pipeline.repository import Repository
from pipeline.runs.effects.job import Job, Result
from pipeline.runs.journal import create_only
from pipeline.sources.export import export_from

RUN_TAG, STEP_TAG = "failback-run", "failback-step"
"""Tags of points, so that a run that was killed knows its own."""
_ELSEWHERE_SECONDS = 2.0


def export(job: Job, step: str = "export") -> Result:
    """While the machine works. `step` tells the points of one run from each other."""
    if who := job.state.vouched.get(job.subject):
        return _given_up(job, who)
    return _exported(job, step, final=False)


def final(job: Job) -> Result:
    """Of what quiesce, or stop, left. Where the source is lost and a person vouched: the newest there is."""
    if who := job.state.vouched.get(job.subject):
        return _given_up(job, who)
    if not job.source.able(job.subject, job.settings).reads:
        return _from_elsewhere(job)
    return _exported(job, "final", final=True)


def make_set(job: Job) -> Result:
    """The points of a group, taken at one barrier, together: from now on none of them is collected. Those whose last
    point was taken: also of machines that stay after all, so that it is the same set whenever it is asked for."""
    group = next(g for g in job.plan.groups if g.name == job.subject)
    machines = [m for m in group.machines if job.state.done(f"final/{m}")]
    points = {m: job.point(m) for m in machines}
    for point in points.values():
        hold(job.repository, point, holder=holder(job.run), reason=f"comes home by run {job.run}")
    key = set_key(job.run, job.plan.groups.index(group))
    record = {
        "format": 1,
        "run": job.run,
        "group": group.name,
        "points": {m: {"sequence": p.manifest.sequence, "manifest": p.object_hash} for m, p in points.items()},
    }
    try:
        data = encode_record(Kind.SET, record, sealing=job.repository.sealing, key=key)
        create_only(job.repository, key, data)
    except AlreadyExists:
        there = decode_record(
            memoryview(job.repository.store.get(key)), Kind.SET, sealing=job.repository.sealing, key=key
        )
        if there != record:
            raise SourceError(
                f"{key} names other points than this run took", remedy="roll back; a new run takes a new set"
            ) from None
    return {"points": {m: p.manifest.label for m, p in points.items()}}


def holder(run: str) -> str:
    """Of the points that a run uses."""
    return f"run-{run}"


def _exported(job: Job, step: str, *, final: bool) -> Result:
    point, how = job.newest(), Result()
    if point is None or not _is_ours(point, job.run, step):
        taken = export_from(
            job.ground,
            job.source,
            job.subject,
            job.settings,
            parent=point,
            final=final,
            tags={**job.machine.tags, RUN_TAG: job.run, STEP_TAG: step},
            memory=job.ground.memory // max(1, job.plan.limits.parallel),
        )
        point = taken.point
        disks = [{"number": d.number, "mode": d.mode, "reason": d.reason} for d in taken.disks]
        how = {"disks": disks, "steps": dict(taken.steps)}
    job.source.exported(job.subject, job.settings, point)
    return {**_said(point), **how}


def _given_up(job: Job, who: str) -> Result:
    point = job.newest()
    if point is None:
        raise CatalogueError(f"{job.subject} has no recovery point", remedy="it cannot come home from here")
    return {**_said(point), "override": who, "lost_since": point.manifest.started}


def _is_ours(point: Point, run: str, step: str) -> bool:
    tags = point.manifest.tags
    return (tags.get(RUN_TAG), tags.get(STEP_TAG)) == (run, step)


def _from_elsewhere(job: Job) -> Result:
    """Something else exports this machine: its final point is one that says so and is later than what was staged
    at the beginning: disks that caught up may hold it already."""
    staged = int(job.state.effect(f"stage/{job.subject}").result.get("sequence", 0))
    job.control.tell(f"waiting for a final point of {job.subject}: `failback export {job.subject} --final ...` there")
    while True:
        job.control.check()
        point = job.newest()
        if point is not None and point.manifest.final and point.manifest.sequence > staged:
            return _said(point)
        time.sleep(_ELSEWHERE_SECONDS)


def _said(point: Point) -> Result:
    manifest = point.manifest
    return {
        "point": manifest.label,
        "sequence": manifest.sequence,
        "consistency": manifest.consistency,
        "taken": manifest.started,
    }


def release_all(repository: Repository, plan: Plan, run: str) -> None:
    """What the run held is free again. A hold too many costs space, never data."""
    for machine in plan.machines:
        with suppress(FailbackError):
            release(repository, machine, holder(run))
