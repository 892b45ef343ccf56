"""Accepts launches durably, cancels jobs, says what would be applied. Makes no bucket.

The Job's name is the lock: the API server refuses the second POST of an id. Any replica may accept.
An accept makes five calls: is the id finished, the Job, the same question again, the Secret, a last
look at the Job.
"""

import contextlib
import secrets

import structlog

from pyvatti import labels
from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    JobExists,
    JobFinished,
    JobNotFound,
    NotFound,
    PyvattiError,
    Unavailable,
)
from pyvatti.jobs import id_names, queued_patch, read_job, why_not_ours
from pyvatti.kube import JOBS, SECRETS
from pyvatti.launch import LaunchRequest
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.withdrawing import find_job, is_stored, withdraw
from pyvatti.manifests import redact
from pyvatti.models import IdNames, Job, Manifest, Presence

log = structlog.get_logger(__name__)

SAME_ID = "this id belongs to a live job with another request"
FINISHED = "this id belongs to a finished job"
CANCEL_TRIES = 5
LEAVING = "this id belongs to a job that is being removed"


class Intake:
    """What the API does to jobs."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def accept(self, request: LaunchRequest) -> str:
        """Write the job durably and give its id; a repeat of the same live request changes nothing.

        Raises JobExists, JobFinished, and Unavailable or Rejected if it could not be written:
        then nobody was promised anything and the job will not run.
        """
        self._doors.home.require_staying()
        names = id_names(request.job_id, self._doors.settings.namespace)
        before = self._doors.cache.job(names.base)
        if before is not None and before.presence is Presence.GONE:
            raise Unavailable("what an earlier job of this id left is being removed", retry_after=5)
        await self._refuse_finished(names)
        manifest, nonce = self._signed(request)
        try:
            raw = await self._doors.kube.create(JOBS, manifest)
        except AlreadyExists:
            return await self._repeat(request, names)
        except Unavailable:
            await self._withdraw_own(names, nonce)
            raise
        job = read_job(raw)
        with self._doors.cache.accepting(job):
            self._doors.cache.note_job(raw)
            await self._complete(request, job, nonce)
            await self._require_kept(job)
        log.info("job accepted", job=names.base)
        self._doors.events.note(
            job, "Accepted", "the request is stored; the job is queued", self._doors.clock()
        )
        return names.job_id

    def _signed(self, request: LaunchRequest) -> tuple[Manifest, str]:
        """Give the Job with the nonce of this very request: who made it may take it back."""
        manifest = self._doors.renderer.job(request, self._doors.installation)
        nonce = secrets.token_hex(16)
        manifest["metadata"].setdefault("annotations", {})[labels.ACCEPT] = nonce
        return manifest, nonce

    async def _complete(self, request: LaunchRequest, job: Job, nonce: str) -> None:
        """Store the request beside its Job, unless the id is finished; undo the Job on failure.

        The record is looked for again: it may have been written between the first look and the
        Job, and no later, for a job's record is written before its name is free.
        """
        try:
            await self._refuse_finished(job.names)
            await self._store(request, job)
        except (PyvattiError, OSError):
            await self._withdraw_own(job.names, nonce)
            raise

    async def _store(self, request: LaunchRequest, job: Job) -> None:
        secret = self._doors.renderer.driver_secret(request, job.names, self._doors.installation)
        try:
            await self._doors.kube.create(SECRETS, secret)
        except AlreadyExists:
            if not await is_stored(self._doors, job):
                raise

    async def _withdraw_own(self, names: IdNames, nonce: str) -> None:
        """Withdraw the Job this request made, also where the answer to its create was lost.

        What fails here is left to the acting replica: the mark of a withdrawal, or its absence
        for too long, tells it.
        """
        try:
            raw = await self._doors.kube.get(JOBS, names.base)
            if raw is not None and not why_not_ours(raw, self._doors.installation):
                await withdraw(self._doors, read_job(raw), nonce=nonce)
        except (PyvattiError, OSError) as error:
            log.warning("launch not withdrawn yet", job=names.base, error=str(error))

    async def _repeat(self, request: LaunchRequest, names: IdNames) -> str:
        raw = await self._doors.kube.get(JOBS, names.base)
        if raw is None:
            raise Unavailable("the id was just released; try again", retry_after=1)
        if why_not_ours(raw, self._doors.installation):
            raise JobExists("this id is the name of a Job that is not ours")
        job = read_job(raw)
        if job.withdrawn:
            await self._refuse_finished(names)
            raise Unavailable("an earlier launch of this id is being withdrawn", retry_after=2)
        if job.request_hash != request.fingerprint():
            raise JobExists(SAME_ID)
        if job.state.is_terminal or job.deleting_since is not None:
            raise JobFinished(FINISHED if job.state.is_terminal else LEAVING)
        if not job.is_marked:
            await self._finish_repeat(request, job)
        return names.job_id

    async def _finish_repeat(self, request: LaunchRequest, job: Job) -> None:
        """Complete an accept that another request began; both write the very same Secret.

        Where it fails the Job stays: its maker, or another repeat, may complete it.
        """
        if not await is_stored(self._doors, job):
            await self._refuse_finished(job.names)
            await self._store(request, job)
        await self._require_kept(job)

    async def _require_kept(self, job: Job) -> None:
        """Take the last look before a 201, after the Secret is stored (see `withdrawing`)."""
        newest = await find_job(self._doors, job)
        if newest is None or newest.withdrawn or newest.deleting_since is not None:
            raise Unavailable("this launch is being taken back; try again", retry_after=2)

    async def _refuse_finished(self, names: IdNames) -> None:
        """Raise JobFinished for an id that has a record."""
        if await records.find(self._doors.kube, names) is not None:
            raise JobFinished(FINISHED)

    async def dry_run(self, request: LaunchRequest) -> list[Manifest]:
        """Ask the API server about everything that would be applied; creates nothing.

        Raises Rejected with the server's words, JobExists for a taken name, JobFinished.
        """
        names = id_names(request.job_id, self._doors.settings.namespace)
        await self._refuse_finished(names)
        manifests = self._doors.renderer.everything(request, self._doors.installation)
        for kind, manifest in zip((JOBS, SECRETS, SECRETS), manifests, strict=True):
            try:
                await self._doors.kube.create(kind, manifest, dry_run=True)
            except AlreadyExists:
                taken = f"{kind.kind} {manifest['metadata']['name']}"
                raise JobExists(f"{taken} exists already") from None
        return [redact(manifest) for manifest in manifests]

    async def cancel(self, job_id: str) -> None:
        """Begin to stop a job; again for a cancelled one is no error.

        Raises JobNotFound, JobFinished.
        """
        names = id_names(job_id, self._doors.settings.namespace)
        for _ in range(CANCEL_TRIES):
            try:
                return await self._cancel(names)
            except Conflict:  # the controller wrote first: look again
                continue
        raise Unavailable("the job changes faster than it can be cancelled", retry_after=1)

    async def _cancel(self, names: IdNames) -> None:
        raw = await self._doors.kube.get(JOBS, names.base)
        if raw is None or why_not_ours(raw, self._doors.installation):
            await self._cancel_finished(names)
            return
        job = read_job(raw)
        if job.withdrawn:
            if not job.withdrawal_decided and await is_stored(self._doors, job):
                raise Unavailable("the launch is just being completed", retry_after=1)
            raise JobNotFound(f"{names.job_id} is not known")
        if job.state.is_terminal:
            _require_cancelled(job.verdict.reason if job.verdict else "")
            return
        if job.deleting_since is not None:
            return
        await self._mark_accepted(job)
        with contextlib.suppress(NotFound):
            answer = await self._doors.kube.delete(
                JOBS, names.base, uid=job.uid, propagation="Foreground"
            )
            if answer is not None and answer.get("kind") == "Job":
                self._doors.cache.note_job(answer)
        log.info("cancel requested", job=names.base)
        self._doors.events.note(job, "CancelRequested", "asked by the API", self._doors.clock())

    async def _mark_accepted(self, job: Job) -> None:
        """Note that the job was accepted: a deletion takes the Secret that proves it."""
        if not job.is_marked:
            if not await is_stored(self._doors, job):
                raise JobNotFound(f"{job.names.job_id} is not known")
            raw = await self._doors.kube.merge_patch(JOBS, job.names.base, queued_patch(job))
            self._doors.cache.note_job(raw)

    async def _cancel_finished(self, names: IdNames) -> None:
        record = await records.find(self._doors.kube, names, self._doors.installation)
        if record is None:
            raise JobNotFound(f"{names.job_id} is not known")
        _require_cancelled(record.verdict.reason if record.verdict else "")


def _require_cancelled(reason: str) -> None:
    """Accept a repeated cancel silently, refuse one of a job that ended otherwise."""
    if reason != "Cancelled":
        raise JobFinished(FINISHED)
