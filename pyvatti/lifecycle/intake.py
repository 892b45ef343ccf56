"""Accepts launches durably, cancels jobs, says what would be applied. Makes no bucket.

The Job's name is the lock: the API server refuses the second POST of an id. Any replica may accept.
"""

import contextlib
import time

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
from pyvatti.lifecycle.withdrawing import is_stored, withdraw
from pyvatti.manifests import redact
from pyvatti.models import IdNames, Job, Manifest, Presence, State

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
        began = time.monotonic()
        names = id_names(request.job_id, self._doors.settings.namespace)
        before = self._doors.cache.job(names.base)
        if before is not None and before.presence is Presence.GONE:
            raise Unavailable("what an earlier job of this id left is being removed", retry_after=5)
        manifest = self._doors.renderer.job(request, self._doors.installation)
        try:
            raw = await self._doors.kube.create(JOBS, manifest)
        except AlreadyExists:
            return await self._repeat(request, names)
        except Unavailable:
            with contextlib.suppress(PyvattiError):
                await self._withdraw_lost(request, names)
            raise
        job = read_job(raw)
        with self._doors.cache.accepting(job):
            self._doors.cache.note_job(raw)
            await self._complete(request, job)
            grace = self._doors.settings.accept_grace.total_seconds()
            if time.monotonic() - began > grace / 2:  # it may have been taken for abandoned
                await self._require_kept(job)
        log.info("job accepted", job=names.base)
        self._doors.events.note(
            job, "Accepted", "the request is stored; the job is queued", self._doors.clock()
        )
        return names.job_id

    async def _complete(self, request: LaunchRequest, job: Job) -> None:
        """Store the request beside its Job, unless the id is finished; undo the Job on failure."""
        try:
            await self._refuse_finished(job.names)
            await self._store(request, job)
        except (PyvattiError, OSError):
            with contextlib.suppress(PyvattiError):
                await self._withdraw(job)
            raise

    async def _store(self, request: LaunchRequest, job: Job) -> None:
        secret = self._doors.renderer.driver_secret(request, job.names, self._doors.installation)
        try:
            await self._doors.kube.create(SECRETS, secret)
        except AlreadyExists:
            found = await self._doors.kube.get(SECRETS, job.names.base)
            if found is None or labels.owner_uid(found) != job.uid:
                raise

    async def _withdraw(self, job: Job) -> None:
        """Withdraw the newest version of a Job that was not accepted, unless it moved on."""
        raw = await self._doors.kube.get(JOBS, job.names.base)
        if raw is not None and raw["metadata"]["uid"] == job.uid:
            newest = read_job(raw)
            if newest.state is State.REQUESTED and State.REQUESTED not in newest.transitions:
                await withdraw(self._doors, newest)

    async def _withdraw_lost(self, request: LaunchRequest, names: IdNames) -> None:
        """Find and withdraw the Job of a create whose answer was lost."""
        raw = await self._doors.kube.get(JOBS, names.base)
        if raw is not None and read_job(raw).request_hash == request.fingerprint():
            await self._withdraw(read_job(raw))

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
        if job.state is State.REQUESTED and not await is_stored(self._doors, job):
            await self._finish_repeat(request, job)
        return names.job_id

    async def _finish_repeat(self, request: LaunchRequest, job: Job) -> None:
        """Complete an accept that another request began; both write the very same Secret."""
        if State.REQUESTED in job.transitions:
            return  # it was accepted before; that its Secret is gone is the controller's to judge
        await self._refuse_finished(job.names)
        await self._store(request, job)
        await self._require_kept(job)

    async def _require_kept(self, job: Job) -> None:
        """Look for the mark of a withdrawal, after the Secret is stored (see `withdraw`)."""
        raw = await self._doors.kube.get(JOBS, job.names.base)
        if raw is None or raw["metadata"]["uid"] != job.uid or read_job(raw).withdrawn:
            raise Unavailable("an earlier launch of this id is being withdrawn", retry_after=2)

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
        if job.state is State.REQUESTED and State.REQUESTED not in job.transitions:
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
