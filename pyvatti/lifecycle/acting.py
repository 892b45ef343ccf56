"""Does the steps the policy decides on: one method a step, each idempotent. Decides nothing.

404 on a deletion is done; 409 on a creation means read back and compare the identity.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import assert_never
from weakref import WeakValueDictionary

import structlog

from pyvatti import jobs, labels
from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    NamespaceTerminating,
    NotOurs,
    RateLimited,
)
from pyvatti.kube import JOBS, PODS, SECRETS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.runs import RunFollower
from pyvatti.lifecycle.withdrawing import withdraw
from pyvatti.models import Job, Manifest, Presence, Removal, State, Verdict
from pyvatti.policy import Observed, Progress
from pyvatti.policy import actions as act
from pyvatti.storage import Purpose
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

PATCH_TRIES = 5
STRAY_PAUSE = 1.0  # seconds
RATE_PAUSE = 5.0  # seconds without bucket calls after a 429 that names none
SPOKEN = {
    State.DEPLOYED: "Deployed",
    State.SUCCEEDED: "Succeeded",
    State.FAILED: "Failed",
}


class NotYet(Exception):
    """The step waits for its turn: nothing went wrong."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"in {seconds:.1f} s")
        self.seconds = seconds


class Hands:
    """Does one step for one job.

    `admitted` names the queued jobs that have a slot now.
    """

    def __init__(
        self,
        doors: Doors,
        runs: RunFollower,
        admitted: Callable[[], AbstractSet[str]],
    ) -> None:
        self._doors, self._runs, self._admitted = doors, runs, admitted
        self._pens: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by uid
        self._release_lock = asyncio.Lock()  # the limit is exact: one release at a time is counted

    def has_slot(self, job: Job) -> bool:
        """Tell whether a queued job may start now."""
        return job.names.base in self._admitted()

    async def do(self, step: act.Action, seen: Observed, done: Progress) -> Progress:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one arm a step
        """Do one step and give what is known after it. Errors are those of the doors."""
        job = seen.job
        match step:
            case act.FindJob():
                return await self._find_job(job, done)
            case act.Withdraw():
                await withdraw(self._doors, job)
            case act.MarkQueued():
                await self._patch(job, jobs.queued_patch)
            case act.MakeBucket(name=name):
                return await self._make_bucket(job, name, done)
            case act.MakeTransferSecret():
                return await self._make_transfer_secret(job, done)
            case act.Enqueue():
                queue = self._doors.settings.kueue_queue
                await self._patch(job, lambda now_job: jobs.queue_patch(now_job, queue))
                self._note(job, "Enqueued", f"handed to Kueue queue {queue}")
            case act.Release():
                await self._release(job)
            case act.NoteCreated():
                await self._patch(job, lambda now_job: self._created(now_job, release=False))
                self._note_stay(job)
            case act.AskSeqera():
                await self._runs.ask(job.names.run_name)
            case act.LookForReport():
                return await self._look_for_report(job, done)
            case act.KeepWitness(pod=pod):
                await self._patch(job, lambda now_job: jobs.witness_patch(now_job, pod))
            case act.DeleteTransferSecret():
                # after a restart they are long gone: no news
                if await self._delete_secret(job, job.names.transfer_secret):
                    self._note(job, "CredentialsDeleted", "the transfer's credentials are deleted")
                gone = self._gone(f"secret/{job.names.transfer_secret}")
                return replace(done, transfer_gone=True, removals=(*done.removals, gone))
            case act.RemoveStagedFiles():
                return await self._remove_staged_files(job, done)
            case act.Enter():
                await self._enter(job, step)
            case act.StopJob() if job.presence is Presence.GONE:
                return replace(done, stop_sent=True)
            case act.StopJob():
                return await self._stop(job, done)
            case act.RemoveStrays():
                return await self._remove_strays(job, done)
            case act.RemoveBucket(name=name):
                return await self._remove_bucket(job, name, done)
            case act.WriteRecord():
                return await self._write_record(seen, done)
            case act.LetGo():
                await self._patch(job, self._let_go)
                self._note_stay(job)
                log.info("job let go", state=job.state.value)
                return replace(done, let_go=True)
            case act.Repair():
                await self._patch(job, jobs.repair_patch)
                self._note(job, "Repaired", "a label or finalizer was edited and is put back")
            case _:
                assert_never(step)
        return done

    async def settle(self, job: Job, build: Callable[[Job], Manifest | None]) -> None:
        """Write a change of the outbox to the Job, reading again while others write first."""
        await self._patch(job, build)

    def note(self, job: Job, reason: str, text: str, *, warning: bool = False) -> None:
        """Tell an Event about the job."""
        self._doors.events.note(job, reason, text, self._doors.clock(), warning=warning)

    _note = note

    async def _patch(self, job: Job, build: Callable[[Job], Manifest | None]) -> None:
        """Compare-and-swap: build from the newest version; None means there is nothing to write."""
        async with self._pen(job):
            for _ in range(PATCH_TRIES):
                newest = self._doors.cache.job(job.names.base, job.uid)
                if newest is None or (patch := build(newest)) is None:
                    return
                if newest.presence is Presence.GONE:
                    self._doors.cache.patch_lost(job.uid, patch)
                    return
                if await self._try_patch(job, patch):
                    return
        raise Conflict(f"Job {job.names.base} changes faster than it can be written")

    async def _try_patch(self, job: Job, patch: Manifest) -> bool:
        """Write a patch; False where another version came first and is read now."""
        kube, cache = self._doors.kube, self._doors.cache
        try:
            cache.note_job(await kube.merge_patch(JOBS, job.names.base, patch))
        except Conflict:
            raw = await kube.get(JOBS, job.names.base)
            if raw is not None and raw["metadata"]["uid"] == job.uid:
                cache.note_job(raw)
                return False
        return True

    def _pen(self, job: Job) -> asyncio.Lock:
        """Give the lock under which this Job is written: actor and courier never collide."""
        return self._pens.setdefault(job.uid, asyncio.Lock())

    async def _find_job(self, job: Job, done: Progress) -> Progress:
        """Read a Job that left our sight, and its record, before believing that it is gone."""
        kube, cache, names = self._doors.kube, self._doors.cache, job.names
        raw = await kube.get(JOBS, names.base)
        if raw is not None and raw["metadata"]["uid"] == job.uid:
            identity = labels.identity(self._doors.settings.instance, labels.DRIVER)
            patch = jobs.identity_patch(jobs.read_job(raw), identity)
            cache.note_job(await kube.merge_patch(JOBS, names.base, patch))
            self._note(job, "Repaired", "labels were edited and are put back")
            raise NotYet(STRAY_PAUSE)  # the watch brings it back
        record = await records.find(kube, names)
        if record is not None and record.uid == job.uid:
            cache.drop_lost(job.uid)  # another replica brought it to its end
            return done
        log.error("job is gone before it was let go", state=job.state.value)
        dying_since = (job.deleting_since or self._doors.clock()).isoformat()
        held = {"deletionTimestamp": dying_since, "finalizers": [labels.FINALIZER]}
        cache.patch_lost(job.uid, {"metadata": held})
        return done

    def _let_go(self, job: Job) -> Manifest:
        if job.pending:
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
            await self._patch(job, lambda now_job: self._created(now_job, release=True))
        self._note_stay(job)
        log.info("job released")
        self._note(job, "Released", "buckets and Secrets are in place; the driver may start")

    async def _enter(self, job: Job, step: act.Enter) -> None:
        verdict, now = step.verdict, self._doors.clock()

        def build(newest: Job) -> Manifest | None:
            if newest.state.is_terminal and newest.state is not verdict.state:
                return None
            if newest.state is State.DEPLOYED and verdict.state is State.DEPLOYED:
                return None  # what was seen was old: its event is in the outbox
            return jobs.transition_patch(newest, verdict, now, step.witness)

        await self._patch(job, build)
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
        self._note(
            job, SPOKEN[verdict.state], f"{verdict.reason}: {verdict.message}", warning=warning
        )

    def _await_turn(self, job: Job) -> None:
        delay = self._doors.limiter.delay(job.names.base, time.monotonic())
        if delay > 0:
            raise NotYet(delay)

    @contextlib.contextmanager
    def _minding_the_rate(self) -> Iterator[None]:
        """Make all bucket calls pause when Cloud Storage says that they are too many."""
        try:
            yield
        except RateLimited as error:
            pause = error.retry_after or RATE_PAUSE
            self._doors.limiter.postpone(pause, time.monotonic())
            raise

    async def _make_bucket(self, job: Job, name: str, done: Progress) -> Progress:
        self._await_turn(job)
        purpose: Purpose = "work" if name == job.names.work_bucket else "results"
        with self._minding_the_rate():
            await self._doors.storage.create_bucket(
                name, job_id=job.names.base, job_uid=job.uid, purpose=purpose
            )
        log.info("bucket made", bucket=name)
        self._note(job, "BucketMade", f"bucket {name} is made")
        return replace(done, buckets=done.buckets | {name})

    async def _make_transfer_secret(self, job: Job, done: Progress) -> Progress:
        secret = self._doors.renderer.transfer_secret(job.names, job.uid)
        try:
            await self._doors.kube.create(SECRETS, secret)
        except AlreadyExists:
            found = await self._doors.kube.get(SECRETS, job.names.transfer_secret)
            if found is None:
                raise
            if labels.owner_uid(found) != job.uid:
                name = job.names.transfer_secret
                raise NotOurs(f"Secret {name} belongs to somebody else") from None
        return replace(done, transfer_made=True, transfer_gone=False)

    async def _look_for_report(self, job: Job, done: Progress) -> Progress:
        bucket = job.names.results_bucket
        found = await self._doors.storage.has_object(bucket, "results/", "report.html")
        return replace(done, report_found=found)

    async def _stop(self, job: Job, done: Progress) -> Progress:
        async with self._pen(job):
            raw = await self._doors.kube.delete(
                JOBS, job.names.base, uid=job.uid, propagation="Foreground"
            )
            if raw is not None and raw.get("kind") == "Job":
                self._doors.cache.note_job(raw)
        log.info("job stopping")
        self._note(job, "Stopping", "the driver is stopped and its Secrets are deleted")
        names, noted = job.names, {removal.resource for removal in done.removals}
        going = (f"pods/{names.base}", f"secret/{names.base}", f"secret/{names.transfer_secret}")
        gone = tuple(self._gone(resource) for resource in going if resource not in noted)
        removals = (*done.removals, *gone)
        return replace(done, stop_sent=True, transfer_gone=True, removals=removals)

    async def _remove_strays(self, job: Job, done: Progress) -> Progress:
        kube, names = self._doors.kube, job.names
        selector = f"{labels.CONTROLLER_UID}={job.uid}"
        pods = (await kube.list_page(PODS, selector=selector)).items
        for pod in pods:
            metadata = pod["metadata"]
            if not metadata.get("deletionTimestamp"):
                await kube.delete(PODS, metadata["name"], uid=metadata["uid"])
        strays = len(pods)
        for name in (names.base, names.transfer_secret):
            strays += await self._delete_secret(job, name)
        if strays:
            raise NotYet(STRAY_PAUSE)  # a stopped pod may write until it is gone: look again
        return replace(done, strays_gone=True, removals=self._proven(job, done))

    async def _delete_secret(self, job: Job, name: str) -> bool:
        """Delete a Secret of this very Job; tell whether there was one."""
        kube = self._doors.kube
        secret = await kube.get(SECRETS, name)
        if secret is None or labels.owner_uid(secret) != job.uid:
            return False
        uid = secret["metadata"]["uid"]
        return await kube.delete(SECRETS, name, uid=uid, propagation="Background") is not None

    def _gone(self, resource: str) -> Removal:
        return Removal(resource=resource, removed_at=self._doors.clock())

    def _proven(self, job: Job, done: Progress) -> tuple[Removal, ...]:
        """Add that the cluster was looked through and holds nothing of the job but the Job."""
        now, names = self._doors.clock(), job.names
        removals = {removal.resource: removal for removal in done.removals}
        for name in (
            f"secret/{names.base}",
            f"secret/{names.transfer_secret}",
            f"pods/{names.base}",
        ):
            known = removals.get(name) or Removal(resource=name, removed_at=None)
            removals[name] = replace(known, proven_absent_at=now)
        return tuple(removals.values())

    async def _remove_staged_files(self, job: Job, done: Progress) -> Progress:
        names = job.names
        try:
            removal = await self._doors.storage.remove_folder(
                names.work_bucket, names.transfer_folder, job_uid=job.uid
            )
        except NotOurs:  # somebody edited its labels
            log.warning("bucket is not ours, staged files stay", bucket=names.work_bucket)
            return replace(done, staged_gone=True)
        log.info("staged files removed", folder=removal.resource, objects=removal.objects)
        return replace(done, staged_gone=True, removals=(*done.removals, removal))

    async def _remove_bucket(self, job: Job, name: str, done: Progress) -> Progress:
        storage = self._doors.storage
        try:
            if await storage.empty_bucket(name, job_uid=job.uid):
                self._await_turn(job)
            with self._minding_the_rate():
                removal = await storage.delete_bucket(name, job_uid=job.uid)
        except NotOurs:
            log.warning("bucket is not ours and stays", bucket=name)
            removal = Removal(resource=f"bucket/{name}", removed_at=None)
        log.info("bucket removed", bucket=name, objects=removal.objects, bytes=removal.bytes)
        count = "" if removal.objects is None else f" with {removal.objects} objects"
        self._note(job, "BucketRemoved", f"bucket {name}{count} is gone")
        return replace(done, removals=(*done.removals, removal))

    async def _write_record(self, seen: Observed, done: Progress) -> Progress:
        job = seen.job
        newest = self._doors.cache.job(job.names.base, job.uid) or job
        record = records.build(self._doors.renderer, newest, done.removals, self._doors.clock())
        try:
            await records.store(self._doors.kube, record)
        except NamespaceTerminating:
            log.warning("no record: the namespace is being deleted")
        return replace(done, recorded=True)
