"""Another attempt of a job whose slot was taken back: what is written, made and said for it.

When is the policy's to decide. Each step is idempotent.
"""

import asyncio
import base64
from dataclasses import replace

import structlog

from pyvatti import jobs
from pyvatti.errors import NotFound, NotOurs, PyvattiError
from pyvatti.kube import SECRETS
from pyvatti.lifecycle import removing
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.writing import JobWriter, Wrote
from pyvatti.manifests import RUN_NAME_KEY
from pyvatti.models import Job, Manifest, QueueWords
from pyvatti.policy import Progress
from pyvatti.policy.evicting import is_given_again

log = structlog.get_logger(__name__)

PATIENCE = 1.0  # seconds for Kueue's words: they are for people


async def ask_kueue(doors: Doors, job: Job) -> QueueWords | None:
    """Read what Kueue says of a job that was handed to it. No failure of it is an error."""
    if not job.queue_name:
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            raw = await doors.kube.workload_of(job.uid)
    except (PyvattiError, TimeoutError) as error:
        log.debug("workload not read", job=job.names.base, error=str(error))
        return None
    if raw is None:
        return None
    return jobs.read_workload(raw, doors.cache.personal.pod_cleaner(job.uid))


class Restarting:
    """Begins other attempts of jobs."""

    def __init__(self, doors: Doors, writer: JobWriter) -> None:
        self._doors, self._writer = doors, writer

    async def note_eviction(self, job: Job, pods: tuple[str, ...], done: Progress) -> Progress:
        """Write down that the slot was taken back: first of all, for the slot may come back soon.

        What is known of the former attempt's transfer, end and report says nothing any more.
        """
        words = None if job.attempt.waits else await ask_kueue(self._doors, job)
        said = words.evicted if words is not None else ""
        namespace, now = self._doors.settings.namespace, self._doors.clock()

        def build(newest: Job) -> Manifest | None:
            if is_given_again(job, newest):
                return None
            return jobs.evicted_patch(newest, namespace, now, said, pods)

        wrote = await self._writer.patch(job, build)
        if wrote is Wrote.WRITTEN and not job.attempt.waits:
            text = "its slot was taken back" + (f": {said}" if said else "")
            log.warning("job evicted", attempt=job.attempt.number, said=said)
            self._writer.note(job, "Evicted", text, warning=True)
        return replace(
            done,
            prepared_for=0,
            refusal=None,
            transfer_made=False,
            transfer_gone=False,
            staged_gone=False,
            report_found=None,
            end_seen_at=None,
        )

    async def note_resumed(self, job: Job) -> None:
        """Write down that the slot was given again."""
        now = self._doors.clock()
        if await self._writer.patch(job, lambda it: jobs.resumed_patch(it, now)) is Wrote.WRITTEN:
            log.info("job resumed", attempt=job.attempt.number)
            text = f"attempt {job.attempt.number} begins, as run {job.names.run_name}"
            self._writer.note(job, "AttemptBegins", text)

    async def drop_old_credentials(self, job: Job) -> None:
        """Delete the transfer's Secret of the former attempt, while no pod can need it."""
        if job.suspended:
            await removing.delete_secret(self._doors, job.names, job.names.transfer_secret)

    async def name_run(self, job: Job) -> None:
        """Write the name of this attempt's run where its driver reads it: in the driver's Secret.

        Raises NotFound without that Secret, NotOurs where it is somebody else's.
        """
        kube, name = self._doors.kube, job.names.base
        secret = await kube.get(SECRETS, name)
        if secret is None:
            raise NotFound(f"Secret {name} is gone: no other attempt can start")
        if why := jobs.why_secret_not_of(secret, job.names, self._doors.installation):
            raise NotOurs(f"Secret {name} belongs to somebody else: {why}")
        told = base64.b64encode(job.names.run_name.encode()).decode()
        if (secret.get("data") or {}).get(RUN_NAME_KEY) == told:
            return
        metadata = {key: secret["metadata"][key] for key in ("uid", "resourceVersion")}
        patch = {"metadata": metadata, "data": {RUN_NAME_KEY: told}}
        await kube.merge_patch(SECRETS, name, patch)
