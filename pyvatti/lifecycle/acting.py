"""Does the steps the policy decides on: one method a step, each idempotent. Decides nothing.

404 on a deletion is done; 409 on a creation means read back and compare the identity.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import assert_never

import structlog

from pyvatti import jobs, labels
from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    NotOurs,
)
from pyvatti.kube import SECRETS
from pyvatti.lifecycle.clearing import Clearing
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.restarting import Restarting
from pyvatti.lifecycle.runs import RunFollower
from pyvatti.lifecycle.turns import minding_the_rate, take_turn
from pyvatti.lifecycle.withdrawing import withdraw
from pyvatti.lifecycle.writing import JobWriter, Wrote
from pyvatti.models import Job, Manifest, State, Verdict
from pyvatti.policy import Observed, Progress
from pyvatti.policy import actions as act
from pyvatti.policy.evicting import is_taken_back
from pyvatti.storage import Purpose
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

SPOKEN = {
    State.DEPLOYED: "Deployed",
    State.SUCCEEDED: "Succeeded",
    State.FAILED: "Failed",
}


class Hands:
    """Does one step for one job.

    `admitted` names the queued jobs that have a slot now.
    """

    def __init__(
        self,
        doors: Doors,
        writer: JobWriter,
        runs: RunFollower,
        admitted: Callable[[], AbstractSet[str]],
    ) -> None:
        self._doors, self._writer, self._runs = doors, writer, runs
        self._admitted = admitted
        self._clearing = Clearing(doors, writer)
        self._again = Restarting(doors, writer)
        self._release_lock = asyncio.Lock()  # the limit is exact: one release at a time is counted

    def has_slot(self, job: Job) -> bool:
        """Tell whether a queued job may start now."""
        return job.names.base in self._admitted()

    def warn(self, job: Job, reason: str, text: str) -> None:
        """Tell a Warning Event about a job."""
        self._writer.note(job, reason, text, warning=True)

    async def do(self, step: act.Action, seen: Observed, done: Progress) -> Progress:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one arm a step
        """Do one step and give what is known after it. Errors are those of the doors."""
        job = seen.job
        match step:
            case act.FindJob():
                await self._writer.find(job)
            case act.Withdraw():
                await withdraw(self._doors, job)
            case act.MarkQueued():
                await self._writer.patch(job, jobs.queued_patch)
            case act.MakeBucket(name=name):
                return await self._make_bucket(job, name, done)
            case act.MakeTransferSecret():
                return await self._make_transfer_secret(job, done)
            case act.Enqueue():
                queue = self._doors.settings.kueue_queue
                if await self._is_written(job, lambda it: jobs.queue_patch(it, queue)):
                    self._writer.note(job, "Enqueued", f"handed to Kueue queue {queue}")
            case act.Release():
                await self._release(job)
            case act.NoteCreated():
                if await self._is_written(job, lambda it: self._created(it, release=False)):
                    self._note_stay(job)
            case act.NoteEviction(pods=pods):
                return await self._again.note_eviction(job, pods, done)
            case act.PrepareAttempt(number=number):
                await self._again.drop_old_credentials(job)
                done = await self._make_transfer_secret(job, done)
                await self._again.name_run(job)
                return replace(done, prepared_for=number)
            case act.NoteResumed():
                await self._again.note_resumed(job)
            case act.AskSeqera():
                await self._runs.ask(job.names.run_name)
            case act.LookForReport():
                return await self._look_for_report(job, done)
            case act.KeepWitness(pod=pod):
                await self._writer.patch(job, lambda now_job: jobs.witness_patch(now_job, pod))
            case act.DeleteTransferSecret():
                return await self._clearing.delete_transfer_secret(job, done)
            case act.RemoveStagedFiles():
                return await self._clearing.remove_staged_files(job, done)
            case act.Enter():
                await self._enter(job, step)
            case act.StopJob():
                return await self._clearing.stop(job, done)
            case act.RemoveStrays(lost=lost):
                return await self._clearing.remove_strays(job, done, lost)
            case act.RemoveBucket(name=name):
                return await self._clearing.remove_bucket(job, name, done)
            case act.LookAgain(resources=resources):
                return await self._clearing.look_again(job, resources, done)
            case act.WriteRecord(unseen=unseen):
                return await self._clearing.write_record(job, done, unseen)
            case act.LetGo():
                await self._writer.patch(job, lambda it: self._let_go(it, done))
                self._note_stay(job)
                log.info("job let go", state=job.state.value)
                return replace(done, let_go=True)
            case act.Repair():
                await self._repair(job)
            case _:
                assert_never(step)
        return done

    async def _is_written(self, job: Job, build: Callable[[Job], Manifest | None]) -> bool:
        """Write to the Job; tell whether that took place: only then is the step reported."""
        return await self._writer.patch(job, build) is Wrote.WRITTEN

    async def _repair(self, job: Job) -> None:
        identity = labels.identity(self._doors.installation, labels.DRIVER)
        if not await self._is_written(job, lambda it: jobs.repair_patch(it, identity)):
            return
        what = ", ".join(job.edited) or "a label or finalizer"
        log.warning("job was edited and is repaired", what=what)
        self._writer.note(
            job, "Repaired", f"edited and put back, never followed: {what}", warning=True
        )

    def _let_go(self, job: Job, done: Progress) -> Manifest:
        if job.pending or job.outbox != done.recorded_outbox:
            raise Conflict("an event is to be told again, so the record is not the last word")
        return jobs.finalizer_patch(job)

    def _created(self, job: Job, *, release: bool) -> Manifest | None:
        if job.state is not State.REQUESTED:
            return None
        build = jobs.release_patch if release else jobs.created_patch
        return build(job, self._doors.clock())

    async def _release(self, job: Job) -> None:
        async with self._release_lock:
            newest = self._doors.cache.job(job.names.base, job.uid)
            if newest is None or newest.deleting_since is not None or not self.has_slot(newest):
                return
            if not await self._is_written(job, lambda it: self._created(it, release=True)):
                return
        self._note_stay(job)
        log.info("job released")
        self._writer.note(job, "Released", "buckets and Secrets are in place; the driver may start")

    async def _enter(self, job: Job, step: act.Enter) -> None:
        verdict, now = step.verdict, self._doors.clock()

        def build(newest: Job) -> Manifest | None:
            if is_taken_back(job, newest) or _is_overtaken(newest, verdict):
                return None
            return jobs.transition_patch(newest, verdict, now, step.witness)

        if not await self._is_written(job, build):
            return
        if job.state is not verdict.state:
            self._note_stay(job)
        if verdict.reason == "RunSucceededDespiteExitStatus":
            log.warning("seqera contradicts itself", exit_status=verdict.exit_code)
        if verdict.state.is_terminal:
            metrics.finished.labels(verdict.state.value, verdict.reason).inc()
        self._report(job, verdict)

    def _note_stay(self, job: Job) -> None:
        """Measure how long a job was in the state it left."""
        since = job.transitions.get(job.state, job.accepted_at)
        stay = (self._doors.clock() - since).total_seconds()
        metrics.stays.labels(job.state.value).observe(max(stay, 0.0))

    def _report(self, job: Job, verdict: Verdict) -> None:
        log.info(
            "state entered",
            state=verdict.state.value,
            reason=verdict.reason,
            message=verdict.message,
            exit_code=verdict.exit_code,
        )
        warning = verdict.state is State.FAILED
        self._writer.note(
            job, SPOKEN[verdict.state], f"{verdict.reason}: {verdict.message}", warning=warning
        )

    async def _make_bucket(self, job: Job, name: str, done: Progress) -> Progress:
        take_turn(self._doors, job)
        purpose: Purpose = "work" if name == job.names.work_bucket else "results"
        with minding_the_rate(self._doors):
            await self._doors.storage.create_bucket(
                name, owner=self._doors.owner(job), purpose=purpose
            )
        log.info("bucket made", bucket=name)
        self._writer.note(job, "BucketMade", f"bucket {name} is made")
        return replace(done, buckets=done.buckets | {name})

    async def _make_transfer_secret(self, job: Job, done: Progress) -> Progress:
        secret = self._doors.renderer.transfer_secret(job.names, self._doors.installation)
        try:
            await self._doors.kube.create(SECRETS, secret)
        except AlreadyExists:
            found = await self._doors.kube.get(SECRETS, job.names.transfer_secret)
            if found is None:
                raise
            if why := jobs.why_secret_not_of(found, job.names, self._doors.installation):
                name = job.names.transfer_secret
                raise NotOurs(f"Secret {name} belongs to somebody else: {why}") from None
            if labels.owner_uid(found) != job.uid:  # restored: an earlier job's of this id
                uid, name = found["metadata"]["uid"], job.names.transfer_secret
                await self._doors.kube.delete(SECRETS, name, uid=uid, propagation="Background")
                raise Conflict(f"Secret {name} was an earlier job's and is removed") from None
        return replace(done, transfer_made=True, transfer_gone=False)

    async def _look_for_report(self, job: Job, done: Progress) -> Progress:
        bucket = job.names.results_bucket
        found = await self._doors.storage.has_object(
            bucket, "results/", "report.html", owner=self._doors.owner(job)
        )
        return replace(done, report_found=found)


def _is_overtaken(newest: Job, verdict: Verdict) -> bool:
    """Tell whether a verdict comes too late: the Job has ended, or its event is in the outbox."""
    if newest.state.is_terminal:
        return newest.state is not verdict.state
    return newest.state is State.DEPLOYED and verdict.state is State.DEPLOYED
