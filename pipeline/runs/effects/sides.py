"""The two sides of a machine: who may run it, and that the other one does not."""

from __future__ import annotations

from pipeline.errors import RunRefused, SourceError
from pipeline.runs.effects.job import Job, Result
from pipeline.runs.ownership import Epoch, advance, current

STOP_SECONDS = 120.0


def check_free(epoch: Epoch) -> None:
    """Raises RunRefused for a machine that is not the takeover side's: no run may move it from there."""
    if epoch.side != "takeover":
        raise RunRefused(
            f"{epoch.machine} is {epoch.side}, by run {epoch.run}: it is not at the takeover site",
            remedy=f"`failback run show {epoch.run}`; after another disaster, `failback run reown {epoch.machine}`",
        )


def claim(job: Job) -> Result:
    """From now on this run alone moves the machine."""
    before = current(job.repository, job.subject)
    if before.run == job.run and before.side == "moving":
        return _said(before)
    check_free(before)
    job.confirm()
    return _said(advance(job.repository, before, "moving", run=job.run, proof={}))


def quiesce(job: Job) -> Result:
    if who := job.state.vouched.get(job.subject):
        return {"override": who}
    epoch = _moving(job)
    job.confirm()
    try:
        job.source.quiesce(job.subject, job.settings, epoch=epoch.number)
    except SourceError:
        if job.source.observe(job.subject, job.settings).power != "off":
            raise
        return {"off": True}  # somebody switched it off: what is there is what comes home
    return {}


def stop(job: Job) -> Result:
    if who := job.state.vouched.get(job.subject):
        return {"override": who}
    epoch = _moving(job)
    job.confirm()
    job.source.stop(job.subject, job.settings, epoch=epoch.number, seconds=STOP_SECONDS)
    return {}


def prove(job: Job) -> Result:
    """The source's own word that it is off, or who vouched for it."""
    if who := job.state.vouched.get(job.subject):
        return {"override": who}
    proof = job.source.prove_stopped(job.subject, job.settings)
    return {"by": proof.by, "seen": proof.seen}


def lock(job: Job) -> Result:
    if who := job.state.vouched.get(job.subject):
        return {"override": who}
    if not job.source.able(job.subject, job.settings).locks:
        return {"locked": False}
    epoch = _moving(job)
    job.confirm()
    job.source.lock(job.subject, job.settings, epoch=epoch.number)
    return {"locked": True}


def own(job: Job) -> Result:
    """Home may run it in production: only with the proof that the other side is off, looked at once more."""
    epoch = job.epoch()
    if epoch.side == "home-provisional":
        return _said(epoch)
    proof = dict(job.state.effect(f"prove/{job.subject}").result)
    if not proof:
        raise RunRefused(f"nothing proves that {job.subject} is off", remedy=f"`failback run retry {job.run}`")
    job.check_off()
    if "override" not in proof:
        again = job.source.prove_stopped(job.subject, job.settings)
        proof |= {"by": again.by, "seen": again.seen}
    job.confirm()
    return _said(advance(job.repository, epoch, "home-provisional", run=job.run, proof=proof))


def give_back(job: Job) -> Result:
    """The takeover side may run it again: home was proved off before."""
    epoch = current(job.repository, job.subject)
    if epoch.run == job.run and epoch.side == "takeover":
        return _said(epoch)
    if epoch.side == "takeover":  # our claim never came to be, and with this link it cannot come late
        return _said(advance(job.repository, epoch, "takeover", run=job.run, proof={}))
    claimed = job.state.effect(f"claim/{job.subject}")
    if epoch.run != job.run and claimed.refused:
        # Another run has it: our claim was refused, what would have been the link of a late one is written.
        return {"elsewhere": f"{job.subject} is {epoch.side}, by run {epoch.run}, and was left alone"}
    epoch = job.epoch()
    proof = dict(job.state.effect(f"halt/{job.subject}").result)
    if epoch.side == "home-provisional" and not proof:
        raise RunRefused(f"nothing proves that {job.subject} is off at home", remedy=f"`failback run retry {job.run}`")
    job.confirm()
    return _said(advance(job.repository, epoch, "takeover", run=job.run, proof=proof))


def restart(job: Job) -> Result:
    """The takeover side runs again."""
    if elsewhere := job.state.effect(f"return/{job.subject}").result.get("elsewhere"):
        return {"running": False, "elsewhere": elsewhere}
    epoch = job.epoch()
    if epoch.side != "takeover":
        raise RunRefused(f"{job.subject} is {epoch.side}: the takeover side may not start", remedy="look who moved it")
    job.confirm()
    try:
        job.source.resume(job.subject, job.settings, epoch=epoch.number)
    except SourceError as error:
        if job.subject not in job.state.vouched:
            raise
        return {"running": False, "why": f"it was given up before, and does not start: {error.message}"}
    return {"running": True}


def commit(job: Job) -> Result:
    """It is home for good."""
    epoch = job.epoch()
    if epoch.side == "home-committed":
        return _said(epoch)
    return _said(advance(job.repository, epoch, "home-committed", run=job.run, proof={}))


def retire(job: Job) -> Result:
    """The takeover side's machine may be taken away, by whoever looks after it."""
    if who := job.state.vouched.get(job.subject):
        return {"override": who}
    epoch = job.epoch()
    job.confirm()
    job.source.retire(job.subject, job.settings, epoch=epoch.number)
    return {}


def _moving(job: Job) -> Epoch:
    epoch = job.epoch()
    if epoch.side != "moving":
        raise RunRefused(f"{job.subject} is {epoch.side} and not moving", remedy=f"`failback run show {job.run}`")
    return epoch


def _said(epoch: Epoch) -> Result:
    return {"epoch": epoch.number, "side": epoch.side}
