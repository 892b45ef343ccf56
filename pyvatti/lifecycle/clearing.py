"""Leaves nothing behind: stops the pods, deletes credentials and data, writes the record.

Each step is idempotent: 404 is done, and whose thing it is is looked up before it is touched. The
order of the steps is the policy's.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace

import structlog

from pyvatti.errors import NamespaceTerminating, NotOurs, Undeletable
from pyvatti.jobs import read_pod
from pyvatti.kube import JOBS
from pyvatti.lifecycle import records, removing
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.turns import NotYet, take_turn
from pyvatti.lifecycle.writing import JobWriter
from pyvatti.models import Job, Presence, Remainder, Removal
from pyvatti.policy import Progress, proof

log = structlog.get_logger(__name__)

STRAY_PAUSE = 1.0  # seconds


class Clearing:
    """Removes what one job made, step by step; gives what is known after each."""

    def __init__(self, doors: Doors, writer: JobWriter) -> None:
        self._doors, self._writer = doors, writer

    async def delete_transfer_secret(self, job: Job, done: Progress) -> Progress:
        """Delete the credentials of the transfer."""
        name = job.names.transfer_secret
        done = replace(done, transfer_gone=True)
        try:
            # after a restart they are long gone: no news
            if not await removing.delete_secret(self._doors, job.names, name):
                return done
        except NotOurs as error:
            log.warning("secret is not ours and stays", secret=name, error=str(error))
            return done  # the clean-up looks at it again
        self._writer.note(job, "CredentialsDeleted", "the transfer's credentials are deleted")
        return self._with(done, Removal(resource=f"secret/{name}", removed_at=self._doors.clock()))

    async def remove_staged_files(self, job: Job, done: Progress) -> Progress:
        """Empty the folder of the work bucket in which the transfer worked."""
        names, done = job.names, replace(done, staged_gone=True)
        try:
            removal = await self._doors.storage.remove_folder(
                names.work_bucket, names.transfer_folder, owner=self._doors.owner(job)
            )
        except (NotOurs, Undeletable) as error:  # the whole bucket is the clean-up's
            log.warning("staged files stay", bucket=names.work_bucket, error=str(error))
            self._writer.note(job, "StagedFilesRemain", str(error), warning=True)
            return done
        log.info("staged files removed", folder=removal.resource, objects=removal.objects)
        return self._with(done, removal)

    async def stop(self, job: Job, done: Progress) -> Progress:
        """Delete the Job in the foreground: its pods get TERM, its Secrets go at once."""
        if job.presence is Presence.GONE:
            return replace(done, stop_sent=True)
        async with self._writer.pen(job):
            raw = await self._doors.kube.delete(
                JOBS, job.names.base, uid=job.uid, propagation="Foreground"
            )
            if raw is not None and raw.get("kind") == "Job":
                self._doors.cache.note_job(raw)
        log.info("job stopping")
        self._writer.note(job, "Stopping", "the driver is stopped and its Secrets are deleted")
        now, noted = self._doors.clock(), {item.resource for item in done.removals}
        asked = [
            Removal(resource=name, removed_at=now)
            for name in proof.cluster_resources(job.names)
            if name not in noted
        ]
        return self._with(replace(done, stop_sent=True, transfer_gone=True), *asked)

    async def remove_strays(
        self, job: Job, done: Progress, lost: AbstractSet[str] = frozenset()
    ) -> Progress:
        """Delete pods and Secrets that lost their owner; raise NotYet while a pod may write.

        A pod that has ended may stay: somebody's finalizer holds the object, and nothing runs.
        Those of the uids `lost` are not waited for: their node does not answer.
        """
        pods = await removing.list_pods(self._doors, job.names)
        await removing.delete_pods(self._doors, pods)
        for name in (job.names.base, job.names.transfer_secret):
            try:
                await removing.delete_secret(self._doors, job.names, name)
            except NotOurs as error:
                done = self._leave(job, f"secret/{name}", error, done)
        read = [read_pod(pod) for pod in pods]
        if any(pod.is_live and pod.uid not in lost for pod in read):
            raise NotYet(STRAY_PAUSE, done)  # a stopped pod may write until it is gone: look again
        return replace(done, strays_gone=True)

    async def look_again(self, job: Job, resources: tuple[str, ...], done: Progress) -> Progress:
        """Read whether Secrets and pods are gone; a pod that came meanwhile is stopped first."""
        doors, names = self._doors, job.names
        for resource in resources:
            kind, _, name = resource.partition("/")
            try:
                if kind == "secret":
                    removal = await removing.clear_secret(doors, names, name)
                elif any(read_pod(pod).is_live for pod in await removing.list_pods(doors, names)):
                    return replace(done, strays_gone=False)
                else:
                    removal = await removing.clear_pods(doors, names)
            except NotOurs as error:
                done = self._leave(job, resource, error, done)
            else:
                done = self._with(done, removal)
        return done

    async def remove_bucket(self, job: Job, name: str, done: Progress) -> Progress:
        """Empty and delete a bucket, in its turn; one that is not ours stays, and is told."""

        async def turn() -> None:
            take_turn(self._doors, job)

        try:
            removal = await removing.remove_bucket(self._doors, name, self._doors.owner(job), turn)
        except NotOurs as error:
            return self._leave(job, f"bucket/{name}", error, done)
        log.info("bucket removed", bucket=name, objects=removal.objects, bytes=removal.bytes)
        count = "" if removal.objects is None else f" with {removal.objects} objects"
        self._writer.note(job, "BucketRemoved", f"bucket {name}{count} is gone")
        return self._with(done, *proof.with_folder(removal, job.names))

    async def write_record(
        self, job: Job, done: Progress, unseen: tuple[Remainder, ...] = ()
    ) -> Progress:
        """Write what happened into the record; `unseen` remains as far as anybody knows."""
        doors = self._doors
        newest = doors.cache.job(job.names.base, job.uid) or job
        told = replace(done, remaining=(*done.remaining, *unseen))
        record = records.build(doors.renderer, newest, doors.installation, told, doors.clock())
        try:
            await records.store(doors.kube, record, doors.installation)
        except NamespaceTerminating:
            left = [item.resource for item in done.remaining]
            log.warning("no record: the namespace is being deleted", remaining=left)
        if proof.holds_data(told.remaining):
            doors.remains.note_finished(job.uid, job.transitions.get(job.state, doors.clock()))
        return replace(done, recorded=True, recorded_outbox=newest.outbox)

    def _leave(self, job: Job, resource: str, error: NotOurs, done: Progress) -> Progress:
        """Note, once and aloud, that something under a name of the job is not ours."""
        if any(item.resource == resource for item in done.remaining):
            return done
        made = not proof.was_never_made(job, resource)
        left = Remainder(resource=resource, reason=str(error), made=made)
        if left.made:
            log.error("data remains: it is not ours any more", resource=resource, error=str(error))
            self._writer.note(job, "DataRemains", f"{resource}: {error}", warning=True)
        else:
            log.warning("name was never ours and is left alone", resource=resource)
        return replace(done, remaining=(*done.remaining, left))

    def _with(self, done: Progress, *removals: Removal) -> Progress:
        return replace(done, removals=proof.merged(done.removals, *removals))
