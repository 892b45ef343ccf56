"""Leaves nothing behind: stops the pods, deletes credentials and data, writes the record.

Each step is idempotent: 404 is done, and whose thing it is is looked up before it is touched. The
order of the steps is the policy's.
"""

from dataclasses import replace

import structlog

from pyvatti import labels
from pyvatti.errors import NamespaceTerminating, NotOurs
from pyvatti.kube import JOBS, PODS, SECRETS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.turns import NotYet, minding_the_rate, take_turn
from pyvatti.lifecycle.writing import JobWriter
from pyvatti.models import Job, Presence, Removal
from pyvatti.policy import Progress

log = structlog.get_logger(__name__)

STRAY_PAUSE = 1.0  # seconds


class Clearing:
    """Removes what one job made, step by step; gives what is known after each."""

    def __init__(self, doors: Doors, writer: JobWriter) -> None:
        self._doors, self._writer = doors, writer

    async def delete_transfer_secret(self, job: Job, done: Progress) -> Progress:
        """Delete the credentials of the transfer."""
        # after a restart they are long gone: no news
        if await self._delete_secret(job, job.names.transfer_secret):
            self._writer.note(job, "CredentialsDeleted", "the transfer's credentials are deleted")
        gone = self._gone(f"secret/{job.names.transfer_secret}")
        return replace(done, transfer_gone=True, removals=(*done.removals, gone))

    async def remove_staged_files(self, job: Job, done: Progress) -> Progress:
        """Empty the folder of the work bucket in which the transfer worked."""
        names = job.names
        try:
            removal = await self._doors.storage.remove_folder(
                names.work_bucket, names.transfer_folder, owner=self._doors.owner(job)
            )
        except NotOurs:  # somebody edited its labels
            log.warning("bucket is not ours, staged files stay", bucket=names.work_bucket)
            return replace(done, staged_gone=True)
        log.info("staged files removed", folder=removal.resource, objects=removal.objects)
        return replace(done, staged_gone=True, removals=(*done.removals, removal))

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
        names, noted = job.names, {removal.resource for removal in done.removals}
        going = (f"pods/{names.base}", f"secret/{names.base}", f"secret/{names.transfer_secret}")
        gone = tuple(self._gone(resource) for resource in going if resource not in noted)
        removals = (*done.removals, *gone)
        return replace(done, stop_sent=True, transfer_gone=True, removals=removals)

    async def remove_strays(self, job: Job, done: Progress) -> Progress:
        """Delete pods and Secrets that lost their owner; raise NotYet until none is left."""
        kube, names = self._doors.kube, job.names
        selector = f"{labels.CONTROLLER_UID}={job.uid}"
        listed = (await kube.list_page(PODS, selector=selector)).items
        pods = [pod for pod in listed if labels.owner_uid(pod) == job.uid]
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

    async def remove_bucket(self, job: Job, name: str, done: Progress) -> Progress:
        """Empty and delete a bucket, in its turn; one that is not ours stays."""
        storage, owner = self._doors.storage, self._doors.owner(job)
        try:
            if await storage.empty_bucket(name, owner=owner):
                take_turn(self._doors, job)
            with minding_the_rate(self._doors):
                removal = await storage.delete_bucket(name, owner=owner)
        except NotOurs:
            log.warning("bucket is not ours and stays", bucket=name)
            removal = Removal(resource=f"bucket/{name}", removed_at=None)
        log.info("bucket removed", bucket=name, objects=removal.objects, bytes=removal.bytes)
        count = "" if removal.objects is None else f" with {removal.objects} objects"
        self._writer.note(job, "BucketRemoved", f"bucket {name}{count} is gone")
        return replace(done, removals=(*done.removals, removal))

    async def write_record(self, job: Job, done: Progress) -> Progress:
        """Write what happened into the record."""
        newest = self._doors.cache.job(job.names.base, job.uid) or job
        whose = self._doors.installation
        record = records.build(
            self._doors.renderer, newest, whose, done.removals, self._doors.clock()
        )
        try:
            await records.store(self._doors.kube, record)
        except NamespaceTerminating:
            log.warning("no record: the namespace is being deleted")
        return replace(done, recorded=True)

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
