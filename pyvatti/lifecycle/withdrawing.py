"""Takes back launches that were never accepted completely. When is decided elsewhere.

Only the request that made the Job may (its nonce tells), and the acting replica, for those that
died half-way.

Why never both "201 answered" and "withdrawn" are true: who completes an accept stores the Secret
first and then looks at the Job; it answers 201 only where the Job is there and carries no mark. A
withdrawal (1) writes its mark, (2) looks for the Secret, (3) decides by a write that fits only the
version of the Job that carried the mark before that look, (4) deletes. Was the Secret stored before
look 2, the mark is taken back. Was it stored later, then the look at the Job is later still and
meets the mark, which stands without a gap from 1 to 4: nobody takes back what is decided. What
proves an accept for good (`Job.is_marked`) is written only to a Job without mark, and the mark only
to a Job without that proof.

A crash after 1 or 3 leaves a mark, which the acting replica finishes at once, either way; before 1
the Job is completed by a repeat of the launch, or withdrawn after `ACCEPT_GRACE`.
"""

import base64

import structlog

from pyvatti import jobs, labels
from pyvatti.errors import Conflict, NotFound
from pyvatti.kube import JOBS, SECRETS
from pyvatti.launch import fingerprint_of
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Installation, Job, Manifest, Presence

log = structlog.get_logger(__name__)

TRIES = 8  # a new Job is written by its controller within milliseconds: a conflict is the rule
REQUEST = "request.json"  # the key of the driver's Secret


async def withdraw(doors: Doors, job: Job, *, nonce: str | None = None) -> None:
    """Remove a Job whose accept failed: silently, for nobody was promised anything.

    `nonce` is that of the request that asks; the acting replica has none. A Job that was accepted
    meanwhile stays. Raises Conflict if it changes faster than it can be written.
    """
    if job.presence is Presence.GONE:
        doors.cache.drop_lost(job.uid)
        return
    newest: Job | None = job
    was_marked = job.withdrawn
    for _ in range(TRIES):
        if newest is None or newest.is_marked or nonce not in (None, newest.nonce):
            return
        if was_marked and not newest.withdrawn:
            return  # another found that the accept was complete
        try:
            if not newest.withdrawn:
                newest = await _patch(doors, newest, jobs.withdrawal_patch(newest))
            was_marked = True
            await _end(doors, newest)
            return
        except Conflict:
            newest = await find_job(doors, job)
        except NotFound:
            return
    raise Conflict(f"Job {job.names.base} changes faster than it can be withdrawn")


async def _end(doors: Doors, job: Job) -> None:
    """Take the mark of a Job back, or decide and delete. Raises Conflict, NotFound."""
    if not job.withdrawal_decided:
        if await is_stored(doors, job):
            await _patch(doors, job, jobs.restore_patch(job))
            log.info("launch is kept: its accept was complete", job=job.names.base)
            return
        job = await _patch(doors, job, jobs.decided_patch(job))
    await doors.kube.delete(JOBS, job.names.base, uid=job.uid, propagation="Foreground")
    log.warning("launch withdrawn: it was never accepted completely", job=job.names.base)


async def _patch(doors: Doors, job: Job, patch: Manifest) -> Job:
    return doors.cache.note_job(await doors.kube.merge_patch(JOBS, job.names.base, patch))


async def find_job(doors: Doors, job: Job) -> Job | None:
    """Read the newest version of this very Job; None where it is gone."""
    raw = await doors.kube.get(JOBS, job.names.base)
    if raw is None or raw["metadata"]["uid"] != job.uid:
        return None
    return jobs.read_job(raw)


async def is_stored(doors: Doors, job: Job) -> bool:
    """Tell whether the driver's Secret of this very Job stands: its accept may be complete."""
    secret = await doors.kube.get(SECRETS, job.names.base)
    doors.cache.note_request(job, secret)
    return secret is not None and _belongs(secret, job, doors.installation)


def _belongs(secret: Manifest, job: Job, whose: Installation) -> bool:
    """Tell whether owner, labels and content of a Secret are those of the Job's own."""
    marks = secret["metadata"].get("labels") or {}
    if labels.owner_uid(secret) != job.uid or not labels.is_of(secret, whose):
        return False
    if marks.get(labels.JOB_ID) != job.names.base:
        return False
    stored = (secret.get("data") or {}).get(REQUEST)
    return stored is None or _fingerprint(stored) == job.request_hash


def _fingerprint(stored: str) -> str:
    """Give the hash of a request as a Secret holds it; empty where it cannot be read."""
    try:
        return fingerprint_of(base64.b64decode(stored, validate=True))
    except ValueError:
        return ""
